"""The tools that look into the topics, on a real broker: tap and migrations."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import nan
from typing import IO, Any

import pytest

from tests.support.broker import Broker
from tests.support.command import PROGRAM, environment, one_line_error, virtflow
from tests.support.migration_events import Host, followed, whole
from tests.support.schema_registry import SchemaRegistry
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import sample, status, uuid
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.avro.schema import schema_of
from virtflow.schemas.records import NodeStatus, VmMigration
from virtflow.schemas.topics import DEAD_LETTERS, EVENTS, METRICS, MIGRATIONS, NODES

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
"""A terminal's codes for its other screen (source: xterm)."""
EVENTS_OF_ONE = whole(Host("a"), Host("b"))
STATES = followed(EVENTS_OF_ONE)
UUID = STATES[-1].uuid
RUNNING = VmMigration(
    uuid=uuid(7),
    name="busy\x1b[2J-7",
    source="a",
    destination="b",
    result="running",
    revision=3,
    progress_ratio=0.5,
    data_remaining_bytes=3 << 30,
    memory_bytes_per_second=100 << 20,
    memory_dirty_bytes_per_second=200 << 20,
    memory_iteration=4,
    dirty_ratio=2.0,
    elapsed_seconds=75.0,
    started_timestamp_seconds=1.7e9,
)


@pytest.fixture(scope="module")
def writer(broker: Broker) -> TopicWriter:
    """All topics with something in each."""
    writer = TopicWriter(broker.address, topics=(EVENTS, METRICS, MIGRATIONS, NODES, DEAD_LETTERS))
    writer.write(EVENTS, *EVENTS_OF_ONE)
    writer.write(MIGRATIONS, *STATES, RUNNING)
    writer.write(METRICS, sample(1), sample(2))
    writer.write(NODES, status())
    return writer


def run(broker: Broker, writer: TopicWriter, *words: str) -> subprocess.CompletedProcess[str]:
    return virtflow(*words, "--bootstrap-servers", broker.address, "--topic-prefix", writer.prefix)


def records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_tap_prints_decoded_records_for_jq(broker: Broker, writer: TopicWriter) -> None:
    """One JSON object a line, with where it came from and without what is absent."""
    found = records(run(broker, writer, "tap", "vm.events", "--from", "beginning", "--count", str(len(EVENTS_OF_ONE)), "--json"))
    told = [one["record"] for one in found]
    assert [one["sequence"] for one in told if one["node"] == "a"] == [event.sequence for event in EVENTS_OF_ONE if event.node == "a"]
    assert told[0] == {
        "uuid": UUID,
        "name": "web-1",
        "node": "b",
        "boot_id": "boot",
        "sequence": 1,
        "time": EVENTS_OF_ONE[0].time,
        "kind": "lifecycle",
        "event": 2,
        "detail": 1,
    }
    assert {(one["topic"], one["key"]) for one in found} == {(writer.prefix + "vm.events", UUID)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("tap", "metrics", "--vm", "vm-2", "--count", "1"), "vm-2"),
        (("tap", "metrics", "--vm", uuid(2), "--count", "1"), "vm-2"),
        (("tap", "nodes", "--node", "node-1", "--count", "1"), "node-1  round 0  up=1"),
        (("tap", "migrations", "--vm", "web-1", "--count", str(len(STATES))), "a -> b  completed"),
        (("tap", "events", "--node", "b", "--count", "2"), "resumed (migrated)"),
    ],
)
def test_tap_prints_lines_for_people(broker: Broker, writer: TopicWriter, words: tuple[str, ...], expected: str) -> None:
    """By VM, by node; names can't harm the terminal."""
    done = run(broker, writer, *words, "--from", "1d")
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout.splitlines()[-1]
    assert "\x1b" not in done.stdout


def test_tap_reads_messages_that_carry_a_registrys_id(broker: Broker) -> None:
    """Where a registry is configured, what its ids frame is decoded like anything else."""
    writer = TopicWriter(broker.address, topics=(NODES,))
    writer.write_bytes(NODES, b"node-1", Codec({"NodeStatus": 7}).encode(status()))
    with SchemaRegistry({7: schema_of(NodeStatus)}) as registry:
        switches = ("--bootstrap-servers", broker.address, "--topic-prefix", writer.prefix)
        words = ("tap", "nodes", "--from", "beginning", "--count", "1", "--json", *switches)
        done = virtflow(*words, env={"VIRTFLOW_REGISTRY_URL": registry.url})
    assert [entry["record"]["node"] for entry in records(done)] == [status().node]


def test_tap_waits_for_what_comes(broker: Broker, writer: TopicWriter) -> None:
    """Without --from only what comes from now on; undecodable records and tombstones are said, not fatal."""
    command = [
        str(PROGRAM),
        "tap",
        "events",
        "--json",
        "--count",
        "2",
        "--bootstrap-servers",
        broker.address,
        "--topic-prefix",
        writer.prefix,
    ]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as tapping:
        assert tapping.stdout is not None
        lines: list[str] = []
        while tapping.poll() is None:
            writer.write_bytes(EVENTS, b"k", b"no record")
            try:
                tapping.wait(1.0)
            except subprocess.TimeoutExpired:
                continue
        lines = tapping.stdout.read().splitlines()
    assert tapping.returncode == 0
    assert all("unknown_magic" in json.loads(line)["undecodable"] for line in lines)
    assert len(lines) == 2


def test_migrations_as_a_table(broker: Broker, writer: TopicWriter) -> None:
    """Running first with bar, rates and verdict; hostile names are cleaned; the compacted past is one line a VM."""
    done = run(broker, writer, "migrations")
    assert done.returncode == 0, done.stderr
    head, running, ended = done.stdout.splitlines()
    assert head.split()[:4] == ["VM", "FROM", "TO", "RESULT"]
    assert "busy?[2J-7" in running
    assert "██████······  50 %" in running
    assert "3.0 GiB" in running
    assert "100 MiB/s" in running
    assert "will not end by itself" in running
    assert ended.split()[:4] == ["web-1", "a", "b", "completed"]
    assert "100 %" in ended


def test_migrations_for_programs(broker: Broker, writer: TopicWriter) -> None:
    """--json is one array; --watch --json one object a line, as they change, until the reader goes."""
    done = run(broker, writer, "migrations", "--json")
    found = json.loads(done.stdout)
    assert [(one["uuid"], one["result"]) for one in found] == [(RUNNING.uuid, "running"), (UUID, "completed")]
    assert "expected_remaining_seconds" not in found[0]
    with reading(broker, writer, "--json") as watching:
        assert [json.loads(watching.readline())["result"] for _ in range(2)] == ["running", "completed"]
        writer.write(MIGRATIONS, VmMigration(uuid=uuid(9), result="cancelled", revision=1, progress_ratio=nan))
        assert json.loads(watching.readline()) == {"uuid": uuid(9), "result": "cancelled", "revision": 1, "verdict": "cancelled"}


@contextmanager
def reading(broker: Broker, writer: TopicWriter, *switches: str) -> Iterator[IO[str]]:
    """What ``virtflow migrations --watch`` writes into a pipe; it is ended whatever its reader found."""
    command = [str(PROGRAM), "migrations", "--watch", *switches, "--bootstrap-servers", broker.address, "--topic-prefix", writer.prefix]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            yield watching.stdout
        finally:
            watching.terminate()


class Terminal:
    """A command on a terminal of 80 columns and 24 lines; ``text`` is all it has written."""

    def __init__(self, *words: str) -> None:
        """Starts it."""
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self._process = subprocess.Popen(
            [str(PROGRAM), *words], env=environment({"TERM": "xterm"}), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, wanted: str) -> None:
        """Reads on until ``wanted`` is there, or fails with what was written instead."""
        begin, deadline = len(self.text), time.monotonic() + 30.0
        while wanted not in self.text[begin:]:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} is not in {self.text[begin:]!r}"
            self.text += os.read(self._ours, 65_536).decode()

    def interrupt(self) -> int:
        """Ctrl-C; its exit code once it has given the terminal back."""
        self._process.send_signal(signal.SIGINT)
        self.read_until(LEAVE)
        code = self._process.wait(20.0)
        os.close(self._ours)
        return code


def test_migrations_are_watched_on_a_terminal(broker: Broker, writer: TopicWriter) -> None:
    """Drawn over itself on a screen of its own, no wider than the terminal, and given back at the end."""
    terminal = Terminal("migrations", "--watch", "--bootstrap-servers", broker.address, "--topic-prefix", writer.prefix)
    terminal.read_until("will not end by")
    writer.write(MIGRATIONS, VmMigration(uuid=uuid(8), name="later-8", result="failed", revision=1))
    terminal.read_until("later-8")
    assert terminal.interrupt() == 130
    assert terminal.text.index(ENTER) < terminal.text.index("will not end by") < terminal.text.rindex(LEAVE)
    frames = re.split(r"\x1b\[H", terminal.text)
    lines = [line for frame in frames for line in re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", frame).splitlines()]
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("1 running, ") for line in lines)
    assert "Traceback" not in terminal.text


def test_migrations_are_watched_by_a_pipe(broker: Broker, writer: TopicWriter) -> None:
    """A line for each change, so that grep and less have something to work on."""
    with reading(broker, writer) as watching:
        assert "busy?[2J-7  a -> b  running  will not end by itself" in watching.readline()
        line = next(line for line in watching if "web-1" in line)
        assert "web-1  a -> b  completed" in line
        assert line.endswith("████████████ 100 %\n")


@pytest.mark.parametrize("words", [("tap", "events"), ("migrations",)])
def test_without_broker_or_topic_one_line_says_why(broker: Broker, words: tuple[str, ...]) -> None:
    line = one_line_error(virtflow(*words, "--bootstrap-servers", broker.address, "--topic-prefix", "none."), 1)
    assert "missing; run `virtflow topics create`" in line
    line = one_line_error(virtflow(*words, "--bootstrap-servers", "127.0.0.1:1"), 1)
    assert "broker 127.0.0.1:1" in line


def test_wrong_topics_and_times_are_wrong_use() -> None:
    assert virtflow("tap", "weather").returncode == 2
    assert virtflow("tap", "events", "--from", "yesterday").returncode == 2
