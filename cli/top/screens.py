"""The screens of `virtflow top` as lines: state, answers and size in, lines out. Pure.

Everything is said in text: a mark stands for stuck (S), migrating (M), conflict (C) and not probed (?), and > is the cursor, so that
nothing is lost without colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from virtflow.cli.top.lines import ASCII_BLOCKS, BLOCKS, Line, Piece, fit, percent, short, spark
from virtflow.cli.top.state import DEVICE, EVENTS, HELP, MIGRATIONS, NODES, VM, VMS, Row, State, devices, key_of, rows, sort_of
from virtflow.exporter.page.formats import digits, shown

LEAST_COLUMNS: Final = 20
MARKS: Final = (("stuck", "S", "bad"), ("conflict", "C", "bad"), ("migrating", "M", "busy"), ("not_probed", "?", "busy"))


class Screen(NamedTuple):
    """The size in columns and lines, the address, why the newest answer is missing ("" when it is not), and whether blocks can be shown."""

    columns: int
    lines: int
    url: str = ""
    problem: str = ""
    blocks: bool = True


class Column(NamedTuple):
    """A column: its head, its width (0: what is left), its text for a row, whether it is right-aligned, and its style."""

    head: str
    width: int
    text: Callable[[Row, str], str]
    right: bool = True
    style: str = ""


def _number(field: str) -> Callable[[Row, str], str]:
    return lambda row, _: "-" if row[field] is None else digits(row[field])


def _size(field: str) -> Callable[[Row, str], str]:
    return lambda row, _: short(row[field])


def _percent(field: str) -> Callable[[Row, str], str]:
    return lambda row, _: percent(row[field])


def _word(field: str) -> Callable[[Row, str], str]:
    return lambda row, _: str(row[field] or "-").replace("_", " ")


def _name(field: str) -> Callable[[Row, str], str]:
    return lambda row, _: str(row[field] or row.get("uuid") or row.get("node") or "-")


VM_COLUMNS: Final = (
    Column("NAME", 0, _name("name"), right=False),
    Column("STATE", 8, _word("state"), right=False),
    Column("CORES", 5, _number("cpu_cores")),
    Column("CPU", 5, _percent("cpu_ratio")),
    Column("MEMORY", 6, _size("memory_used_bytes")),
    Column("READ/s", 6, _size("disk_read_bytes_per_second")),
    Column("WRIT/s", 6, _size("disk_write_bytes_per_second")),
    Column("IN/s", 6, _size("network_receive_bytes_per_second")),
    Column("OUT/s", 6, _size("network_transmit_bytes_per_second")),
    Column("8 MIN", 8, lambda row, blocks: spark(row["history"], 8, blocks), style="spark"),
    Column("STEAL", 5, _percent("steal_ratio")),
    Column("NODE", 16, _name("node"), right=False),
    Column("PROJECT", 16, _word("project"), right=False),
)
NODE_COLUMNS: Final = (
    Column("NODE", 0, _name("node"), right=False),
    Column("UP", 11, lambda row, _: "up" if row["up"] else str(row["reason"]), right=False),
    Column("VMS", 6, lambda row, _: str(row["vms"])),
    Column("RUN", 6, lambda row, _: str(row["running"])),
    Column("STUCK", 5, lambda row, _: str(row["stuck"])),
    Column("CORES", 6, _number("cpu_cores")),
    Column("MEMORY", 6, _size("memory_used_bytes")),
    Column("HUNG", 5, lambda row, _: "-" if row["hung_calls"] is None else str(row["hung_calls"])),
    Column("AGE", 11, lambda row, _: shown("duration", row["sample_age_seconds"])),
    Column("LIBVIRT", 10, _word("libvirt_version"), right=False),
)
MIGRATION_COLUMNS: Final = (
    Column("VM", 0, _name("name"), right=False),
    Column("RESULT", 10, _word("result"), right=False),
    Column("DONE", 5, _percent("progress_ratio")),
    Column("TOOK", 11, lambda row, _: shown("duration", row["elapsed_seconds"])),
    Column("FROM", 14, _word("source"), right=False),
    Column("TO", 14, _word("destination"), right=False),
    Column("SENT/s", 6, _size("memory_bytes_per_second")),
    Column("STARTED (UTC)", 19, lambda row, _: shown("clock", row["started"]), right=False),
)
EVENT_COLUMNS: Final = (
    Column("TIME (UTC)", 10, lambda row, _: shown("clock", row["time"])[11:], right=False),
    Column("WHAT", 22, lambda row, _: str(row["name"] or row["uuid"] or row["node"]), right=False),
    Column("CHANGE", 0, lambda row, _: str(row["text"]), right=False),
)
DEVICE_COLUMNS: Final = (
    Column("DEVICE", 0, lambda row, _: str(row["key"]), right=False),
    Column("CPU", 5, lambda row, _: percent(row.get("cpu_ratio"))),
    Column("STEAL", 5, lambda row, _: percent(row.get("steal_ratio"))),
    Column("IN/s", 7, lambda row, _: short(row.get("read_bytes_per_second", row.get("receive_bytes_per_second")))),
    Column("OUT/s", 7, lambda row, _: short(row.get("write_bytes_per_second", row.get("transmit_bytes_per_second")))),
    Column("REQ/s", 7, lambda row, _: short(_both(row, "read_requests_per_second", "write_requests_per_second"), 1000)),
    Column("LATENCY", 8, lambda row, _: shown("latency", row.get("write_latency_seconds")) if row["kind"] == "disk" else "-"),
    Column("SIZE", 7, lambda row, _: short(row.get("capacity_bytes"))),
)
LISTED: Final = {
    NODES: ("Nodes", NODE_COLUMNS),
    VMS: ("VMs", VM_COLUMNS),
    MIGRATIONS: ("Migrations", MIGRATION_COLUMNS),
    EVENTS: ("Events", EVENT_COLUMNS),
}
"""Title and columns of the lists; of columns that do not fit the last ones are left out."""
CHARTS: Final = (
    ("cpu", "cpu_cores", "cores", "cpu_cores"),
    ("memory", "memory_used", "size", "memory_used_bytes"),
    ("read", "read_bytes", "rate", "disk_read_bytes_per_second"),
    ("written", "write_bytes", "rate", "disk_write_bytes_per_second"),
    ("received", "receive_bytes", "rate", "network_receive_bytes_per_second"),
    ("sent", "transmit_bytes", "rate", "network_transmit_bytes_per_second"),
)
KEYS: Final = {
    NODES: "enter VMs  v all VMs  m migrations  e events  / search  s sort  ? help  q quit",
    VMS: "enter open  esc back  / search  s S sort  r reverse  f flags  ? help  q quit",
    VM: "enter device  esc back  ? help  q quit",
    DEVICE: "esc back  ? help  q quit",
    MIGRATIONS: "enter VM  esc back  / search  s sort  r reverse  ? help  q quit",
    EVENTS: "enter VM  esc back  / search  ? help  q quit",
    HELP: "any key goes back",
}
HELP_TEXT: Final = (
    "up down k j     move           pageup pagedown home end",
    "enter right l   one step down: fleet, node, VM, device",
    "esc left h      one step back",
    "n v m e         nodes, all VMs, migrations, events",
    "/               search; enter keeps it, esc clears it",
    "s S r           next and previous order, reverse order",
    "f               only stuck, only migrating, only in conflict, all",
    "space           hold still and go on",
    "q               quit",
    "",
    "Marks: S stuck (its QEMU does not answer), C conflict (two nodes report",
    "that it runs), M migrating, ? unknown whether it answers.",
    "Rates are per second, between a VM's last two samples; B, K, M, G are",
    "powers of 1024. The sparkline has the cores of the last minutes.",
)


def draw(state: State, answers: dict[str, Any], screen: Screen) -> list[Line]:
    """The whole screen, ``screen.lines`` lines at most."""
    top = [_fleet_line(answers, screen), _use_line(answers)]
    body = [_bottom(state, screen, answers.get("fleet", {}).get("missing", ""))]
    room = max(screen.lines - len(top) - len(body), 1)
    return [*top, *_content(state, answers, screen, room)[:room], *body][: screen.lines]


def body_height(state: State, screen: Screen) -> int:
    """How many rows of the list fit."""
    return max(1, screen.lines - (14 if state.view == VM else 5))


def _content(state: State, answers: dict[str, Any], screen: Screen, room: int) -> list[Line]:
    if state.view == HELP:
        return _padded([[Piece(fit(text, screen.columns))] for text in HELP_TEXT], room)
    if state.view in LISTED:
        title, columns = LISTED[state.view]
        listed = Listed(_title(state, title, answers), columns, rows(state, answers))
        return _padded(_list(listed, state.place, screen, room), room)
    vm = answers.get("vm")
    if not vm:
        return _padded([[Piece("...")]], room)
    if state.view == VM:
        facts = vm_lines(vm, screen)
        listed = Listed("Devices", DEVICE_COLUMNS, devices(vm))
        return _padded([*facts, *_list(listed, state.place, screen, room - len(facts))], room)
    return _padded(device_lines(vm, state.device, screen), room)


class Listed(NamedTuple):
    """A list: its title, columns and rows."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]


def _list(listed: Listed, place: int, screen: Screen, room: int) -> list[Line]:
    """Title, heads, and as many rows around the cursor at ``place`` as there is room for."""
    kept = fitting(listed.columns, screen.columns - 3)
    height = max(room - 2, 1)
    first = min(max(place - height // 2, 0), max(len(listed.rows) - height, 0))
    head = "   " + " ".join(fit(column.head, wide, right=column.right) for column, wide in kept)
    lines: list[Line] = [[Piece(fit(listed.title, screen.columns), "title")], [Piece(fit(head, screen.columns), "head")]]
    if not listed.rows:
        return [*lines, [Piece("   none", "soft")]]
    blocks = BLOCKS if screen.blocks else ASCII_BLOCKS
    shown_ = enumerate(listed.rows[first : first + height], first)
    return lines + [_row(row, kept, blocks, chosen=number == place) for number, row in shown_]


def _row(row: Row, kept: Sequence[tuple[Column, int]], blocks: str, *, chosen: bool) -> Line:
    mark, style = mark_of(row)
    line = [Piece(">" if chosen else " ", "chosen" if chosen else ""), Piece(f"{mark} ", style)]
    for number, (column, wide) in enumerate(kept):
        space = " " if number else ""
        line.append(Piece(space + fit(column.text(row, blocks), wide, right=column.right), "chosen" if chosen else style or column.style))
    return line


def mark_of(row: Row) -> tuple[str, str]:
    """The mark of a row and its style."""
    flags = row.get("flags", ())
    for flag, mark, style in MARKS:
        if flag in flags:
            return mark, style
    if row.get("up") is False:
        return "D", "bad"
    if row.get("hung_calls") or row.get("stuck"):
        return "H" if row.get("hung_calls") else "S", "bad"
    return ("!", "bad") if row.get("result") in {"failed", "incomplete"} else (" ", "")


def fitting(columns: Sequence[Column], room: int) -> list[tuple[Column, int]]:
    """The columns that fit into so many, with their widths; the one of width 0 gets what is left, 12 at least."""
    kept: list[Column] = []
    used = 0
    for column in columns:
        need = (column.width or 12) + (1 if kept else 0)
        if used + need > room and kept:
            break
        kept.append(column)
        used += need
    rest = max(room - used, 0)
    return [(column, column.width or max(1, min(12 + rest, room))) for column in kept]


def vm_lines(vm: Row, screen: Screen) -> list[Line]:
    """A VM's facts and its last hour."""
    blocks = BLOCKS if screen.blocks else ASCII_BLOCKS
    mark, style = mark_of(vm)
    flags = " ".join(flag.replace("_", " ").upper() for flag in vm["flags"])
    lines: list[Line] = [
        [
            Piece(fit(f"VM {vm['name']}", max(screen.columns - len(flags) - 1, LEAST_COLUMNS)), "title"),
            Piece(f" {flags}" if mark != " " else "", style),
        ],
        [Piece(fit(f"{vm['uuid']}  node {vm['node']}  project {vm['project'] or '-'}", screen.columns))],
        [
            Piece(
                fit(
                    f"{shown('word', vm['state'])} ({shown('word', vm['reason'])})  {vm['vcpus'] or '-'} vCPUs  CPU {percent(vm['cpu_ratio'])}  steal {percent(vm['steal_ratio'])}  sample {shown('duration', vm['sample_age_seconds'])} old",
                    screen.columns,
                )
            )
        ],
    ]
    for word, column, form, now in CHARTS:
        text = fit(word, 9) + fit(shown(form, vm[now]), 12, right=True) + "  "
        lines.append([Piece(text), Piece(spark(vm["hour"][column], max(screen.columns - len(text) - 1, 8), blocks), "spark")])
    return lines


def device_lines(vm: Row, key: str, screen: Screen) -> list[Line]:
    """Everything that is known of one device."""
    found = next((device for device in devices(vm) if key_of(device) == key), None)
    title = [Piece(fit(f"{key} of VM {vm['name']}", screen.columns), "title")]
    if found is None:
        return [title, [Piece("it is no longer there", "bad")]]
    facts = [(name, value) for name, value in found.items() if name not in {"kind", "key"}]
    return [title, [], *([Piece(fit(f"{_words(name):<24} {shown(_form(name), value)}", screen.columns))] for name, value in facts)]


def _words(field: str) -> str:
    return field.removesuffix("_per_second").removesuffix("_seconds").removesuffix("_ratio").replace("_", " ")


def _form(field: str) -> str:
    """The format of a field by its unit."""
    for end, form in (
        ("_bytes_per_second", "rate"),
        ("_per_second", "per_second"),
        ("_bytes", "size"),
        ("_seconds", "latency"),
        ("_ratio", "percent"),
    ):
        if field.endswith(end):
            return form
    return "text"


def _fleet_line(answers: dict[str, Any], screen: Screen) -> Line:
    fleet = answers.get("fleet")
    if not fleet:
        return [Piece(fit(f"virtflow top  {screen.url}", screen.columns), "head")]
    nodes = fleet["nodes"]
    line = [Piece(f"{shown('count', fleet['vms'])} VMs", "head")]
    for word, count, style in (
        ("stuck", fleet["stuck"], "bad"),
        ("migrating", fleet["migrating"], "busy"),
        ("in conflict", fleet["conflicts"], "bad"),
    ):
        line.append(Piece(f"  {count} {word}", style if count else ""))
    line.append(Piece(f"  {nodes['known']} nodes", "head"))
    line += [Piece(f"  {nodes[field]} {word}", "bad" if nodes[field] else "") for field, word in (("down", "down"), ("hung", "hung"))]
    return line


def _use_line(answers: dict[str, Any]) -> Line:
    fleet = answers.get("fleet")
    if not fleet:
        return []
    cores = "-" if fleet["cpu_cores"] is None else digits(fleet["cpu_cores"])
    parts = (
        f"cores {cores} of {fleet['vcpus']} vCPUs",
        f"memory {short(fleet['memory_used_bytes'])} of {short(fleet['memory_bytes'])}",
        f"disk {short(fleet['disk_read_bytes_per_second'])} {short(fleet['disk_write_bytes_per_second'])}",
        f"net {short(fleet['network_receive_bytes_per_second'])} {short(fleet['network_transmit_bytes_per_second'])}",
    )
    return [Piece("  ".join(parts))]


def _title(state: State, title: str, answers: dict[str, Any]) -> str:
    """What the list has, of what, and in which order."""
    answer = answers.get(state.view, {})
    words = [f"{title} of {state.node}" if state.node else title]
    if "matched" in answer:
        words.append(f"{shown('count', answer['matched'])} of {shown('count', answer['total'])}")
    if sort_of(state):
        order = sort_of(state)
        words.append(f"by {order.removeprefix('-').replace('_', ' ')}{', largest first' if order.startswith('-') else ''}")
    words += [word for word in (state.flag, state.state, state.project) if word]
    if state.filter and not state.typing:
        words.append(f"search {state.filter!r}")
    return "  ".join(words)


def _bottom(state: State, screen: Screen, missing: str) -> Line:
    if state.typing:
        return [Piece(fit(f"search: {state.filter}_", screen.columns), "chosen")]
    if problem := screen.problem or missing:
        return [Piece(fit(problem, screen.columns), "bad")]
    return [Piece(fit(("held still, space goes on  " if state.paused else "") + KEYS[state.view], screen.columns), "soft")]


def _padded(lines: list[Line], room: int) -> list[Line]:
    return lines + [[] for _ in range(room - len(lines))]


def _both(row: Row, one: str, other: str) -> float | None:
    known = [row[field] for field in (one, other) if row.get(field) is not None]
    return sum(known) if known else None
