"""What `virtflow top` shows and how keys change that: pure, no terminal and no network.

The way down is fleet (nodes) -> node (its VMs) -> VM (its devices) -> device; beside it are all VMs, migrations and events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from msgspec import Struct
from msgspec.structs import replace

from virtflow.schemas.text import is_printable

Row = dict[str, Any]

NODES, VMS, VM, DEVICE, MIGRATIONS, EVENTS, HELP = "nodes", "vms", "vm", "device", "migrations", "events", "help"
SORTS: Final = {
    VMS: ("-cpu", "-steal", "-memory", "-read", "-write", "-receive", "-transmit", "name", "state"),
    NODES: ("name", "-vms", "-cpu", "-memory", "-hung", "-stuck"),
    MIGRATIONS: ("-started", "name", "-progress", "result"),
}
"""The orders that s goes through."""
FLAGS: Final = ("", "stuck", "migrating", "conflict")
LISTS: Final = {"n": NODES, "v": VMS, "m": MIGRATIONS, "e": EVENTS}
DEVICES: Final = (("vcpu", "virtual_cpus", "vcpu"), ("disk", "disks", "device"), ("net", "interfaces", "device"))
"""Word, list in a VM's answer and field with the name, of each kind of device."""
ROWS_LEAST: Final = 100
ROWS_MOST: Final = 1_000
TEXT_LENGTH: Final = 200


class State(Struct, frozen=True, kw_only=True):
    """One screen.

    ``chosen`` is the key of the row under the cursor, ``place`` where it is; ``limit`` how many rows are asked for, 0 for as many as the
    cursor needs; ``back`` the screen before.
    """

    view: str = NODES
    node: str = ""
    project: str = ""
    uuid: str = ""
    device: str = ""
    sort: str = ""
    filter: str = ""
    state: str = ""
    flag: str = ""
    chosen: str = ""
    place: int = 0
    limit: int = 0
    typing: bool = False
    paused: bool = False
    over: bool = False
    back: State | None = None


def paths(state: State) -> dict[str, str]:
    """What is asked of the API for this screen, by the names that ``rows`` and the screens use."""
    found = {"fleet": "fleet"}
    given = {"sort": sort_of(state), "filter": state.filter, "limit": str(_limit(state))}
    match state.view:
        case "vms":
            given |= {"node": state.node, "project": state.project, "state": state.state, "flag": state.flag, "history": "cpu_cores"}
        case "vm" | "device":
            return found | {"vm": f"vms/{quote(state.uuid, safe='')}"}
        case "events":
            given.pop("sort")
    view = (state.back.view if state.back else NODES) if state.view == HELP else state.view
    if view not in {NODES, VMS, MIGRATIONS, EVENTS}:
        return found
    return found | {view: f"{view}?{urlencode({name: value for name, value in given.items() if value})}"}


def sort_of(state: State) -> str:
    """The order that counts; "" where there is none."""
    orders = SORTS.get(state.view, ("",))
    return state.sort or orders[0]


def rows(state: State, answers: dict[str, Any]) -> list[Row]:
    """The rows that the cursor moves over."""
    if state.view in {NODES, VMS, MIGRATIONS, EVENTS}:
        return list(answers.get(state.view, {}).get("items", []))
    if state.view == VM:
        return devices(answers.get("vm", {}))
    return []


def devices(vm: Row) -> list[Row]:
    """A VM's devices, each with its ``kind`` and ``key``."""
    return [{**device, "kind": word, "key": f"{word} {device[name]}"} for word, listed, name in DEVICES for device in vm.get(listed, [])]


def key_of(row: Row) -> str:
    """What tells a row from the others."""
    return str(row.get("key") or (row.get("id") if "text" in row else "") or row.get("uuid") or row.get("node") or "")


def settled(state: State, listed: Sequence[Row]) -> State:
    """The cursor on the row that it was on, wherever that is now, or at its place: on the first row, and where its row is gone."""
    keys = [key_of(row) for row in listed]
    if state.place and state.chosen in keys:
        return replace(state, place=keys.index(state.chosen))
    place = max(0, min(state.place, len(keys) - 1))
    return replace(state, place=place, chosen=keys[place] if keys else "")


def pressed(state: State, key: str, listed: Sequence[Row], height: int) -> State:
    """The state after a key; ``height`` rows fit on the screen."""
    if state.typing:
        return _typed(state, key)
    if key in {"q", "ctrl-c"}:
        return replace(state, over=True)
    if state.view == HELP or key in {"escape", "left", "h", "backspace"}:
        return _back(state)
    moves = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -height, "pagedown": height, "home": -len(listed), "end": len(listed)}
    if key in moves:
        return _moved(state, moves[key], listed)
    if key in {"enter", "right", "l"}:
        return _opened(state, listed)
    return _changed(state, key)


def _changed(state: State, key: str) -> State:
    """Keys that go to another list, or change how this one is shown."""
    match key:
        case "n" | "v" | "m" | "e":
            state = State(view=LISTS[key], back=state if state.view not in LISTS.values() else state.back, paused=state.paused)
        case "?":
            state = replace(state, view=HELP, back=state)
        case " " | "p":
            state = replace(state, paused=not state.paused)
        case "/" if state.view in {NODES, VMS, MIGRATIONS, EVENTS}:
            state = replace(state, typing=True)
        case "s" | "S" | "r" if state.view in SORTS:
            state = replace(state, sort=_next_order(state, key), place=0, chosen="")
        case "f" if state.view == VMS:
            state = replace(state, flag=FLAGS[(FLAGS.index(state.flag) + 1) % len(FLAGS)], place=0, chosen="")
    return state


def _next_order(state: State, key: str) -> str:
    """The order after s and S, or the reverse one after r."""
    orders, order = SORTS[state.view], sort_of(state)
    if key == "r":
        return order[1:] if order.startswith("-") else f"-{order}"
    known = orders.index(order) if order in orders else 0
    return orders[(known + (1 if key == "s" else -1)) % len(orders)]


def _typed(state: State, key: str) -> State:
    if key in {"enter", "escape"}:
        return replace(state, typing=False, filter=state.filter if key == "enter" else "")
    if key == "ctrl-c":
        return replace(state, over=True)
    if key == "backspace":
        return replace(state, filter=state.filter[:-1], place=0, chosen="")
    if len(key) == 1 and is_printable(key) and len(state.filter) < TEXT_LENGTH:
        return replace(state, filter=state.filter + key, place=0, chosen="")
    return state


def _back(state: State) -> State:
    if state.back is not None:
        return replace(state.back, paused=state.paused)
    return replace(state, filter="", flag="", node="", project="", place=0, chosen="")


def _moved(state: State, by: int, listed: Sequence[Row]) -> State:
    place = max(0, min(state.place + by, len(listed) - 1))
    return replace(state, place=place, chosen=key_of(listed[place]) if listed else "")


def _opened(state: State, listed: Sequence[Row]) -> State:
    """One step down, on the row under the cursor."""
    row = listed[state.place] if state.place < len(listed) else {}
    below = State(back=state, paused=state.paused)
    if state.view == NODES and row:
        return replace(below, view=VMS, node=str(row["node"]))
    if state.view in {VMS, MIGRATIONS, EVENTS} and row.get("uuid"):
        return replace(below, view=VM, uuid=str(row["uuid"]))
    if state.view == VM and row:
        return replace(below, view=DEVICE, uuid=state.uuid, device=key_of(row))
    return state


def _limit(state: State) -> int:
    return state.limit or min(ROWS_MOST, ROWS_LEAST * (state.place // ROWS_LEAST + 2))
