"""Names, keys, headers, values and other programs' words of any kind reach a terminal only through one function."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile_text import HOSTILE, harmless, keys
from virtflow.cli import main
from virtflow.cli.bus import migrations, tap
from virtflow.cli.output.plot import Curve, in_terminal
from virtflow.cli.output.record_text import line
from virtflow.cli.output.table import print_table
from virtflow.runtime import log
from virtflow.runtime.web.server import readiness, text
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import EnvironmentProblemError, InputError, SettingError
from virtflow.schemas.records import NodeStatus, VmEvent, VmInventory, VmMetrics, VmMigration
from virtflow.schemas.text import safe_line, safe_lines

CLI = Path(main.__file__).parent
PRINTING = {"echo", "secho", "print", "echo_via_pager"}
ALLOWED = {"say.py"}


@given(st.text(st.characters(exclude_categories=())))
def test_a_line_is_harmless_and_one(written: str) -> None:
    assert harmless(safe_line(written))
    assert "\n" not in safe_line(written)
    assert harmless(safe_lines(written))
    assert safe_lines(written).count("\n") == written.count("\n")
    safe_lines(written).encode()


def test_nothing_else_prints() -> None:
    """Every command prints through ``cli/output/say.py``; rich prints what went through ``printable``, and draws progress."""
    found = []
    for path in sorted(CLI.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in PRINTING and path.name not in ALLOWED and "rich" not in ast.unparse(node) and "Console" not in ast.unparse(node):
                    found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


@dataclass
class Message:
    """A message of Kafka's client, as far as commands look at it."""

    key_: bytes | None = b"key"
    value_: bytes | None = None
    headers_: list[tuple[str, bytes | None]] = field(default_factory=list)

    def key(self) -> bytes | None:
        """The key."""
        return self.key_

    def value(self) -> bytes | None:
        """The value."""
        return self.value_

    def headers(self) -> list[tuple[str, bytes | None]]:
        """The headers."""
        return self.headers_

    def timestamp(self) -> tuple[int, int]:
        """Kind and milliseconds."""
        return 1, 1_790_000_000_000

    def topic(self) -> str:
        """A topic."""
        return "t"

    def partition(self) -> int:
        """A partition."""
        return 0

    def offset(self) -> int:
        """An offset."""
        return 0


@dataclass
class Reader:
    """A topic that holds these messages."""

    messages: list[Message]

    @property
    def caught_up(self) -> bool:
        """Whether all are read."""
        return not self.messages

    def read(self, seconds: float) -> list[Message]:
        """All of them, once."""
        del seconds
        messages, self.messages = self.messages, []
        return messages


def ask(monkeypatch: pytest.MonkeyPatch, messages: list[Message], *words: str) -> str:
    """What a command says of the messages, on both ways."""

    @contextmanager
    def reading(*given: Any) -> Iterator[Reader]:  # noqa: ANN401, as the command has it
        del given
        yield Reader(list(messages))

    for module in (tap, migrations):
        monkeypatch.setattr(module, "reading", reading)
    done = CliRunner().invoke(main.main, [*words], env={"VIRTFLOW_CONFIG": ""})
    assert done.exit_code == 0, done.output
    return str(done.output)


def test_dead_letters_and_tombstones_are_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, headers' names and values, and values, whoever wrote them."""
    strange = keys(HOSTILE)
    headers: list[tuple[str, bytes | None]] = [
        *((value, value.encode()) for value in HOSTILE),
        *(("x", value) for value in strange),
        ("none", None),
    ]
    messages = [Message(key, b"\x1b[2J", headers) for key in strange] + [Message(key) for key in strange] + [Message(None)]
    for topic in ("dead-letters", "migrations", "inventory", "metrics"):
        for more in ((), ("--json",)):
            said = ask(monkeypatch, messages, "tap", topic, "--count", str(len(messages)), *more)
            assert harmless(said), repr(said)
            assert len(said.splitlines()) == len(messages)


def test_migrations_are_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, nodes and reasons of migrations, and the keys of those that are none."""
    codec = Codec()
    good = [
        Message(
            b"k%d" % n,
            codec.encode(
                VmMigration(uuid=f"{n:08d}-0000-4000-8000-000000000000", name=t, source=t, destination=t, result="failed", reason=t)
            ),
        )
        for n, t in enumerate(HOSTILE)
    ]
    for more in (("--all",), ("--all", "--json")):
        said = ask(monkeypatch, [*good, *(Message(key, b"no record") for key in keys(HOSTILE))], "migrations", *more)
        assert harmless(said), repr(said)
        assert said.count("is skipped") == len(keys(HOSTILE))


@pytest.mark.parametrize("written", HOSTILE, ids=ascii)
def test_records_tables_plots_and_errors_are_harmless(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    for record in (
        VmEvent(uuid=written, name=written, node=written, kind=written, text=written, device=written, path=written),
        VmMigration(uuid=written, name=written, source=written, destination=written, result=written, reason=written),
        NodeStatus(node=written),
        VmInventory(uuid=written, name=written, node=written, title=written),
        VmMetrics(uuid=written, name=written, node=written),
    ):
        assert harmless(line(record))
    assert harmless(in_terminal([Curve(written, [(1.0, 1.0), (2.0, 3.0)], 2.0)], written))
    print_table((written,), [(written,)])
    for error in (
        InputError(written),
        RuntimeError(written),
        EnvironmentProblemError(thing=written, value=written, why=written, fix=written),
        SettingError(origin=written, key=written, value=written, why=written, fix=written),
    ):
        main._told(error)
    said = capsys.readouterr()
    assert harmless(said.out), repr(said.out)
    assert harmless(said.err), repr(said.err)
    assert len(said.err.splitlines()) == 4


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_lines_are_harmless(form: str) -> None:
    """Messages with their arguments, and tracebacks; each message is one line."""
    out = StringIO()
    logger = logging.getLogger("test.hostile")
    handler = logging.StreamHandler(out)
    handler.setFormatter(log.JsonFormatter() if form == "json" else log.TextFormatter())
    logger.addHandler(handler)
    logger.propagate = False
    try:
        for written in HOSTILE:
            logger.warning("a VM named %s on %r", written, written)
            logger.warning(written)
        assert len(out.getvalue().splitlines()) == 2 * len(HOSTILE)
        for written in HOSTILE:
            logger.error("failed: %s", written, exc_info=RuntimeError(written))
    finally:
        logger.removeHandler(handler)
    assert harmless(out.getvalue()), repr(out.getvalue())
    if form == "json":
        entries = [json.loads(each) for each in out.getvalue().splitlines()]
        assert all(harmless(entry["message"]) and harmless(entry.get("traceback", "")) for entry in entries)


def test_warnings_of_commands_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no log is set up, Python writes them itself."""
    log.speak_safely()
    assert logging.lastResort is not None
    for written in HOSTILE:
        logging.lastResort.handle(logging.LogRecord("x", logging.WARNING, "", 0, "%s", (written,), None))
    said = capsys.readouterr().err
    assert harmless(said), repr(said)


def test_pages_of_text_are_harmless() -> None:
    """What is missing may repeat a broker's or a registry's words."""
    import asyncio

    for written in HOSTILE:
        page: Any = asyncio.run(readiness(lambda written=written: written)(None))  # type: ignore[arg-type, misc]
        assert harmless(page.text)
        assert harmless(text(written).text or "")
