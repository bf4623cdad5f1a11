"""Commands on a terminal, with names that mean to steer it: snapshots and the history in every format."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.history_lives import Kept, record
from tests.support.history_truth import SECOND, Seen
from tests.support.history_years import vm_uuid
from tests.support.hostile_text import HOSTILE, harmless, on_a_terminal
from virtflow.history.storage.table_schemas import INVENTORY_ROWS
from virtflow.history.writer.dedup import Changes
from virtflow.history.writer.table_writer import TableWriter
from virtflow.schemas.records import VmInventory

AT = time.time() // 3600 * 3600 - 7200
NUL = "nul\0"
NAMES = [name for name in HOSTILE if name != NUL]
MONTH = time.strftime("%Y-%m", time.gmtime(AT))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A VM for each name, with an owner of that name."""
    path = tmp_path_factory.mktemp("hostile")
    kept = Kept(path)
    told = {("vm", ""): {"vm_cpu_seconds_total": 1.5}}
    seen = [Seen(round((AT + 60 * number) * SECOND), "n", "run", number, 60.0, 1, 1, told=told) for number in range(3)]
    kept.rolled([[record(vm_uuid(number), each, name) for number, name in enumerate(NAMES) for each in seen]])
    writer = TableWriter(kept.store.make(INVENTORY_ROWS), Changes())
    writer.begin(["p"])
    for number, name in enumerate(NAMES):
        vm = VmInventory(uuid=vm_uuid(number), name=name, node=name, collected=AT, project=name, user=name, title=name)
        writer.take("p", number, vm)
    writer.commit()
    return str(path)


@pytest.mark.parametrize(
    "words",
    [
        ("query", "SELECT * FROM inventory"),
        ("query", "--format", "csv", "SELECT * FROM inventory"),
        ("query", "--format", "json", "SELECT * FROM inventory"),
        ("query", 'SELECT name AS "\x1b[2J", [name] FROM inventory'),
        ("query", "SELECT error(name) FROM inventory"),
        ("query", "SELECT name::INTEGER FROM inventory"),
        ("range", "vm_cpu_seconds_total", *(word for number in range(len(NAMES)) for word in ("--vm", vm_uuid(number))), "--step", "raw"),
        ("range", "vm_cpu_seconds_total", "--format", "csv", "--vm", vm_uuid(0), "--vm", vm_uuid(1)),
        ("range", "vm_cpu_seconds_total", "--plot", *(word for number in range(8) for word in ("--vm", vm_uuid(number))), "--step", "raw"),
        ("range", "vm_cpu_seconds_total", "--vm", "\x1b[2Jnobody"),
        ("report", "usage", "--month", MONTH, "--by", "project"),
        ("report", "usage", "--month", MONTH, "--by", "vm", "--format", "csv"),
        ("report", "capacity", "--month", MONTH, "--by", "owner"),
        ("where", str(AT + 60), "--vm", NAMES[0]),
        ("where", str(AT + 60), "--vm", "\x1b[2Jnobody"),
        ("where", "\x1b[2J", "--vm", "x"),
        ("forget", "--dry-run", *(word for name in NAMES for word in ("--vm", name))),
        ("forget", "--dry-run", "--project", NAMES[0]),
        ("verify",),
        ("compact", "--dry-run"),
    ],
    ids=lambda words: " ".join(words[:3]).encode("ascii", "replace").decode().replace("\x1b", "?"),
)
def test_the_history_s_commands_are_harmless(history: str, words: tuple[str, ...]) -> None:
    said = on_a_terminal("history", words[0], "--history", history, *words[1:])
    assert harmless(said), repr(said)
    assert "defect" not in said


@pytest.mark.parametrize("form", ["table", "prometheus", "json"])
def test_a_snapshot_is_harmless(tmp_path: Path, form: str) -> None:
    """Of a recording, which may come from anybody."""
    recording = tmp_path / "recording.jsonl"
    data = {"cpu.time": 1, "balloon.rss": 1, "block.count": 1, "block.0.name": "\x1b[2J"}
    lines = [{"t": AT, "node": name, "kind": "stats", "vm": name, "uuid": vm_uuid(n), "data": data} for n, name in enumerate(HOSTILE)]
    recording.write_text("\n".join([*map(json.dumps, lines), *HOSTILE]) + "\n")
    said = on_a_terminal("snapshot", "--replay", str(recording), "--format", form)
    assert harmless(said), repr(said)


SETTINGS = (
    '[producer]\nnode = "{0}"\n',
    '[log]\nlevel = "{0}"\n',
    '[producer]\n"{0}" = 1\n',
    '"{0}" = 1\n',
    '[kafka.client]\n"{0}" = "{0}"\n',
)


@pytest.mark.parametrize("form", SETTINGS)
def test_settings_and_their_errors_are_harmless(tmp_path: Path, form: str) -> None:
    """A file of settings that somebody else wrote."""
    file = tmp_path / "v.toml"
    for name in ("".join(HOSTILE), "\x1b]0;owned\x07"):
        file.write_text(form.format("".join(f"\\u{ord(character):04x}" for character in name)))
        for words in (("config", "show"), ("check", "--for", "producer", "--connect", "qemu+unix:///x?socket=/n")):
            said = on_a_terminal(*words, "--config", str(file))
            assert harmless(said), repr(said)
