"""`virtflow top` without a terminal: what keys do, what is asked, and golden screens of 80 columns and 24 lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.fleet_samples import HOSTILE, LONG, Taken, busy, migration, seen_twice, taken, updated
from tests.support.vm_samples import WALL, fleet, status, uuid
from virtflow.cli.top.lines import ASCII_BLOCKS, fit, plain, short, spark
from virtflow.cli.top.screens import Screen, draw
from virtflow.cli.top.state import DEVICE, EVENTS, HELP, MIGRATIONS, NODES, VM, VMS, State, devices, paths, pressed, rows, settled
from virtflow.cli.top.terminal import keys_in
from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME
from virtflow.exporter.api.parameters import parse
from virtflow.schemas.records import NodeHealth

DATA = Path(__file__).resolve().parents[2] / "golden" / "data"
SCREEN = Screen(80, 24, "http://127.0.0.1:9177")


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What an exporter with 60 VMs answers."""
    view = seen_twice(fleet(), 60)
    view.fleet.changes.open()
    special: list[Taken] = [
        busy(3, 2, responsive=0),
        busy(4, 2, name=HOSTILE, state=3, state_reason=1),
        busy(5, 2, name=LONG),
        migration(6),
        status("node-9", health=NodeHealth(up=0, hung_calls=2)),
    ]
    taken(view.fleet, special, 12.0)
    updated(view, 12.0)
    for _ in view.recording(12.0):
        pass
    answers = Answers(view, "run", "0.1.0", lambda: "")

    def asked(name: str, **given: str) -> Any:  # noqa: ANN401, the parsed parameters
        return parse(BY_NAME[name].parameters, given.items())

    found = {
        "fleet": answers.fleet(WALL + 12),
        "vms": answers.vms(asked("vms", sort="-cpu", history="cpu_cores"), WALL + 12),
        "vm": answers.vm(uuid(7), WALL + 12),
        "nodes": answers.nodes(asked("nodes"), WALL + 12),
        "migrations": answers.migrations(asked("migrations"), WALL + 12),
        "events": answers.events(asked("events"), WALL + 12),
    }
    plain_: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plain_


SCREENS = {
    "nodes": State(),
    "vms": State(view=VMS, place=2),
    "stuck": State(view=VMS, node="node-1", flag="stuck", filter="vm", typing=True),
    "vm": State(view=VM, uuid=uuid(7)),
    "device": State(view=DEVICE, uuid=uuid(7), device="disk vda"),
    "migrations": State(view=MIGRATIONS),
    "events": State(view=EVENTS),
    "help": State(view=HELP),
}


@pytest.mark.parametrize("name", SCREENS)
def test_screens_are_the_expected_text(name: str, told: dict[str, Any]) -> None:
    """In 80 columns and 24 lines, without colours. To write them again after a change that is meant, delete the file."""
    text = "\n".join(plain(line) for line in draw(SCREENS[name], told, SCREEN)) + "\n"
    file = DATA / f"top-{name}.txt"
    if not file.exists():
        file.write_text(text)
        pytest.fail(f"{file} was not there and is written: look at it, and add it")
    assert text == file.read_text()


@pytest.mark.parametrize("name", SCREENS)
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (20, 5), (40, 10), (200, 60), (8, 3)])
def test_no_line_is_wider_than_the_terminal(name: str, columns: int, lines: int, told: dict[str, Any]) -> None:
    """Nor are there more of them, and none can harm the terminal; the first look has no answers yet."""
    for answers in (told, {}):
        drawn = draw(SCREENS[name], answers, Screen(columns, lines))
        assert len(drawn) <= lines
        for line in drawn[2:]:
            text = plain(line)
            assert text.isprintable()
            assert len(text) <= max(columns, 20), text


def test_why_the_fleet_is_not_known_is_on_the_last_line(told: dict[str, Any]) -> None:
    """What keeps the newest answer from coming goes before it."""
    unknown = told | {"fleet": told["fleet"] | {"missing": "reading back, 3 of 8 partitions to go"}}
    assert plain(draw(State(), unknown, SCREEN)[-1]) == "reading back, 3 of 8 partitions to go"
    assert plain(draw(State(), unknown, SCREEN._replace(problem="refused"))[-1]) == "refused"


def keys(state: State, words: str, told: dict[str, Any]) -> State:
    for word in words.split():
        state = settled(state, rows(state, told))
        state = pressed(state, word, rows(state, told), 10)
    return settled(state, rows(state, told))


def test_the_way_down_and_back(told: dict[str, Any]) -> None:
    """Fleet, node, VM, device; each step back is where it was."""
    vms = keys(State(), "down enter", told)
    assert (vms.view, vms.node) == (VMS, "node-2")
    vm = keys(vms, "j j enter", told)
    assert (vm.view, vm.uuid) == (VM, told["vms"]["items"][2]["uuid"])
    device = keys(vm, "down down enter", told)
    assert (device.view, device.device) == (DEVICE, "disk vda")
    assert keys(device, "escape", told) == keys(vm, "down down", told)
    assert keys(device, "escape left h", told).view == NODES
    assert keys(device, "escape left h", told).place == 1


def test_the_cursor_stays_on_its_row(told: dict[str, Any]) -> None:
    """Wherever that moves; where it is gone, the cursor keeps its place."""
    state = keys(State(view=VMS), "down down down", told)
    items = told["vms"]["items"]
    assert state.chosen == items[3]["uuid"]
    assert settled(state, list(reversed(items))).place == len(items) - 4
    gone = settled(state, [row for row in items if row["uuid"] != state.chosen])
    assert (gone.place, gone.chosen) == (3, items[4]["uuid"])
    assert settled(state, []).chosen == ""


def test_orders_flags_and_search_are_asked_of_the_api(told: dict[str, Any]) -> None:
    assert paths(State(view=VMS))["vms"] == "vms?sort=-cpu&limit=200&history=cpu_cores"
    state = keys(State(view=VMS, node="a&b"), "s r f / w e b enter", told)
    assert paths(state)["vms"] == "vms?sort=steal&filter=web&limit=200&node=a%26b&flag=stuck&history=cpu_cores"
    assert keys(State(view=VMS), "S", told).sort == "state"
    assert paths(State(view=VM, uuid="u/v"))["vm"] == "vms/u%2Fv"
    assert paths(State(view=EVENTS))["events"] == "events?limit=200"
    assert keys(state, "f f f", told).flag == ""


def test_names_are_typed_as_they_are_written(told: dict[str, Any]) -> None:
    """A VM's name may have an ideographic or a no-break space, or joiners; what moves the cursor or turns the line is none of it."""
    state = State(view=VMS, typing=True)
    for key in "\u7af6\u3000a\u00a0b\u200d\u202e\x9b\u2028":
        state = pressed(state, key, rows(state, told), 10)
    assert state.filter == "\u7af6\u3000a\u00a0b\u200d"


def test_typing_ends_with_enter_or_escape(told: dict[str, Any]) -> None:
    typing = keys(State(view=VMS), "/ q j", told)
    assert (typing.typing, typing.filter, typing.over) == (True, "qj", False)
    assert keys(typing, "backspace enter", told).filter == "q"
    assert keys(typing, "escape", told).filter == ""
    assert keys(typing, "ctrl-c", told).over


def test_more_rows_are_asked_for_as_the_cursor_goes_down() -> None:
    assert "limit=400" in paths(State(view=VMS, place=250))["vms"]
    assert "limit=1000" in paths(State(view=VMS, place=5_000))["vms"]


def test_sections_help_and_the_end(told: dict[str, Any]) -> None:
    assert [keys(State(), key, told).view for key in "nvme"] == [NODES, VMS, MIGRATIONS, EVENTS]
    helped = keys(State(view=VMS), "?", told)
    assert helped.view == HELP
    assert keys(helped, "x", told).view == VMS
    assert keys(State(), "q", told).over
    assert keys(State(), "space", told).paused is False
    assert pressed(State(), " ", [], 1).paused


def test_devices_are_of_three_kinds(told: dict[str, Any]) -> None:
    assert [device["key"] for device in devices(told["vm"])] == ["vcpu 0", "vcpu 1", "disk vda", "net vnet7"]


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("jk", ["j", "k"]),
        ("\x1b[A\x1b[B", ["up", "down"]),
        ("\x1b", ["escape"]),
        ("\x1b[5~x", ["pageup", "x"]),
        ("\x1b[1;5Cq", ["q"]),
        ("\x1bOA", ["up"]),
        ("\x7f\r", ["backspace", "enter"]),
        ("é", ["é"]),
        ("\x03", ["ctrl-c"]),
        ("\x1b[99", []),
    ],
)
def test_keys_are_read_from_what_terminals_send(sent: str, found: list[str]) -> None:
    assert keys_in(sent) == found


def test_lines_fit_whatever_is_in_them() -> None:
    assert fit("日本語", 5) == "日本…"
    assert fit("ab", 4, right=True) == "  ab"
    assert fit("a\x1b[31mb", 8) == "a?[31mb "
    assert spark([None, 0.0, 1.0, 2.0], 6, ASCII_BLOCKS) == "   _=#"
    assert spark([], 3) == "   "
    assert [short(value) for value in (None, 0.0, 1536.0, 2.0**30)] == ["-", "0", "1.5K", "1G"]
