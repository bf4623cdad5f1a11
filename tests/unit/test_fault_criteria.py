"""The general criteria of fault tests notice what they are there for."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import criteria
from tests.support.criteria import DESCRIPTORS, MEMORY_BYTES, THREADS, Criteria, Usage, exceeded, parsed, repeated
from tests.support.lab_process import await_true

SECONDS = 20.0


def line(second: int, message: str, level: str = "warning") -> str:
    return f"2026-11-30T05:00:{second:02d}.250Z {level:7} virtflow.x: {message}"


def lines(*texts: str) -> list[criteria.Line]:
    return [found for text in texts if (found := parsed(text)) is not None]


def test_the_same_problem_twice_within_a_minute() -> None:
    """Numbers, names in quotes and places differ from time to time; what was held back is no other problem."""
    found = lines(
        line(1, "the broker 'a' at 10.0.0.1:9092 is away for 3 s"),
        line(9, "the broker 'b' at 10.0.0.2:9092 is away for 11.5 s (4 more like it held back)"),
    )
    assert len(repeated(found)) == 1


@pytest.mark.parametrize(
    "texts",
    [
        (line(1, "one"), line(2, "other")),
        (line(1, "one", "info"), line(2, "one", "info")),
        (line(1, "one"), line(1, "one").replace("05:00", "05:01")),
    ],
    ids=["two problems", "no problem", "a minute later"],
)
def test_what_may_be_logged(texts: tuple[str, str]) -> None:
    assert repeated(lines(*texts)) == []


def test_lines_of_json_are_read_and_others_are_none() -> None:
    text = '{"time": 1.5, "level": "error", "logger": "a", "message": "b 7"}'
    assert parsed(text) == (1.5, "error", "a: b #", text)
    assert parsed("Traceback (most recent call last):") is None
    assert parsed('{"time": 1.5}') is None


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (Usage(2 * MEMORY_BYTES, 0, 0), "memory"),
        (Usage(0, THREADS + 1, 0), "threads"),
        (Usage(0, 0, DESCRIPTORS + 1), "descriptors"),
        (Usage(0, 0, 0, 1), "Kafka clients"),
        (Usage(0, THREADS, DESCRIPTORS), ""),
    ],
)
def test_what_is_beyond_the_baseline(more: Usage, what: str) -> None:
    base = Usage(MEMORY_BYTES, 10, 20)
    now = Usage(*(one + other for one, other in zip(base, more, strict=True)))
    assert exceeded(base, now) == what


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "service.log"
    path.touch()
    return path


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    assert process.stdin
    process.stdin.close()


def test_a_process_that_ends_by_itself(process: subprocess.Popen[bytes], log: Path) -> None:
    with Criteria() as watching:
        criteria.started("service", process, "", log)
        assert not watching.violations()
        process.kill()
        await_true(lambda: bool(watching.violations()), SECONDS, "the violation")
    assert "service has ended by itself with -9" in watching.violations()[0]


def test_a_process_that_the_test_ends(process: subprocess.Popen[bytes], log: Path) -> None:
    with Criteria() as watching:
        criteria.started("service", process, "", log)
        criteria.ends(process)
        process.kill()
        process.wait()
        watching.look()
    assert watching.violations() == []


def test_what_is_printed(process: subprocess.Popen[bytes], log: Path) -> None:
    log.write_text("of an earlier run\n")
    with Criteria() as watching:
        criteria.started("service", process, "", log)
        with log.open("a") as out:
            out.write(f"{line(1, 'a')}\n{line(2, 'a')}\nTraceback\nvirtflow: ended\nexpected\n")
        watching.allow("^expected$")
    found = watching.violations()
    assert [violation.partition(":")[0] for violation in found] == [
        "service prints what is no log line",
        "service logs twice within a minute",
    ]
    assert found[0].endswith("Traceback")


class SlowPages(http.server.BaseHTTPRequestHandler):
    """Answers at once, and later late."""

    late = threading.Event()

    def do_GET(self) -> None:
        """Health."""
        if self.late.is_set():
            time.sleep(criteria.HEALTH_SECONDS + 0.2)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the library's name
        """Nothing."""
        del format, args


def test_health_that_takes_long(process: subprocess.Popen[bytes], log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowPages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(criteria, "STALL_SECONDS", 60.0)  # however busy this machine is
    with Criteria() as watching:
        criteria.started("service", process, f"127.0.0.1:{server.server_port}", log)
        await_true(lambda: watching.runs[0].healthy, SECONDS, "health")
        assert not watching.violations()
        SlowPages.late.set()
        await_true(lambda: bool(watching.violations()), SECONDS, "the violation")
    server.shutdown()
    server.server_close()
    assert "/healthz answered 200 after 1." in watching.violations()[0]
    assert watching.slowest() > criteria.HEALTH_SECONDS
