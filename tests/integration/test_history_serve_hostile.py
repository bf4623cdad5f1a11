"""Small requests that ask for much: `history serve` stays within its memory, answers health meanwhile, and obeys SIGTERM."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.history_serving import Server, serving, until
from tests.support.history_years import DAY, HOUR, hours_of_vm, write_years
from virtflow.history.remote_read.protocol.wire import Asked, Hints, Match, Matcher, ReadRequest, write_request

NOW = int(time.time()) // DAY * DAY
START = NOW - 10 * DAY
MIB = 1 << 20
ROLLED = {"VIRTFLOW_HISTORY_RAW_DAYS": "1"}
"""So that a step of a second is answered from hours: 864,000 samples a series."""
SMALL = Asked(
    START * 1000,
    NOW * 1000,
    (Matcher(Match.EQUAL, "__name__", "vm_memory_rss_bytes"),),
    Hints(step=HOUR * 1000, start=START * 1000, end=NOW * 1000),
)
EVERYTHING = Asked(
    START * 1000, NOW * 1000, (Matcher(Match.REGEX, "__name__", ".+"),), Hints(step=1000, start=START * 1000, end=NOW * 1000)
)
"""All metrics of all VMs at each second: 150 bytes that ask for tens of millions of samples."""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of four VMs."""
    path = tmp_path_factory.mktemp("hostile") / "history"
    write_years(path, {number: hours_of_vm(number, START, NOW) for number in range(1, 5)})
    return path


@contextmanager
def asking(server: Server, count: int, body: bytes) -> Iterator[list[socket.socket]]:
    """So many requests that are sent, whose answers nobody has read yet."""
    head = f"POST /api/v1/read HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with ExitStack() as stack:
        dialled = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            sock.sendall(head + body)
            dialled.append(sock)
        yield dialled


def at_work(server: Server) -> int:
    """How many reading processes compute."""
    return sum(state_of(pid) == "R" for pid in server.children())


def idle(server: Server) -> bool:
    """Whether no reading process computed while health was answered."""
    before = [ticks(pid) for pid in server.children()]
    assert server.page("/healthz") == 200
    return at_work(server) == 0 and before == [ticks(pid) for pid in server.children()]


def ticks(pid: int) -> list[str]:
    """The CPU time that a process has taken, in the kernel's ticks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_all_queries_of_a_request_share_its_limits(history: Path, tmp_path: Path) -> None:
    """One query has 1,000 samples; within a limit of 2,500 two are answered and three are not."""
    with serving(history, tmp_path, {"VIRTFLOW_HISTORY_SERVE_SAMPLES": "2500"}) as server:
        assert server.read(SMALL, SMALL) == (200, "")
        status, said = server.read(SMALL, SMALL, SMALL)
        assert (status, "history.serve_samples" in said) == (400, True)
    with serving(history, tmp_path, {"VIRTFLOW_HISTORY_SERVE_SERIES": "8"}) as server:
        assert server.read(SMALL, SMALL) == (200, "")
        status, said = server.read(SMALL, SMALL, SMALL)
        assert (status, "history.serve_series" in said) == (400, True)


def test_a_request_beyond_its_memory_is_refused_and_the_next_one_answered(history: Path, tmp_path: Path) -> None:
    """The server itself does not grow, and the reading process that gave up is replaced."""
    env = ROLLED | {"VIRTFLOW_HISTORY_SERVE_MEMORY_BYTES": str(64 * MIB), "VIRTFLOW_HISTORY_SERVE_SAMPLES": "1000000000"}
    with serving(history, tmp_path, env) as server:
        assert server.read(SMALL) == (200, "")
        before = server.peak_bytes()
        status, said = server.read(*(EVERYTHING,) * 16)
        assert (status, "history.serve_memory_bytes" in said) == (400, True)
        assert server.page("/healthz") == 200
        assert server.peak_bytes() - before < 64 * MIB
        assert server.read(SMALL) == (200, "")
        until(lambda: server.value("virtflow_history_serve_processes_ended_total") == 1, server)
        until(lambda: len(server.children()) == 2, server)


def test_work_ends_with_its_time(history: Path, tmp_path: Path) -> None:
    """After the 503 nothing computes any more, and the next request is answered."""
    env = ROLLED | {"VIRTFLOW_HISTORY_QUERY_SECONDS": "1", "VIRTFLOW_HISTORY_SERVE_SAMPLES": "1000000000"}
    with serving(history, tmp_path, env) as server:
        status, said = server.read(*(EVERYTHING,) * 16)
        assert (status, "history.query_seconds" in said) == (503, True)
        until(lambda: idle(server), server)
        assert server.page("/healthz") == 200
        assert server.read(SMALL) == (200, "")


def test_work_ends_with_its_client(history: Path, tmp_path: Path) -> None:
    """Who hangs up leaves no work behind."""
    with serving(history, tmp_path, ROLLED | {"VIRTFLOW_HISTORY_SERVE_SAMPLES": "1000000000"}) as server:
        with asking(server, 2, write_request(ReadRequest((EVERYTHING,) * 16))):
            until(lambda: at_work(server) == 2, server)
            assert server.page("/healthz") == 200
        until(lambda: idle(server), server)
        assert server.read(SMALL) == (200, "")


def test_sigterm_is_obeyed_while_requests_compute(history: Path, tmp_path: Path) -> None:
    """Within ten seconds, with nothing left behind."""
    with (
        serving(history, tmp_path, ROLLED | {"VIRTFLOW_HISTORY_SERVE_SAMPLES": "1000000000"}) as server,
        asking(server, 4, write_request(ReadRequest((EVERYTHING,) * 16))),
    ):
        until(lambda: at_work(server) == 2, server)
        children = server.children()
        assert server.stop() == 0
        assert [state_of(pid) for pid in children] == ["", ""]


def test_more_requests_than_can_wait_are_refused_while_health_is_answered(history: Path, tmp_path: Path) -> None:
    """Of 200, 128 wait for their turn."""
    body = write_request(ReadRequest((EVERYTHING,) * 16))
    with (
        serving(history, tmp_path, ROLLED | {"VIRTFLOW_HISTORY_SERVE_SAMPLES": "1000000000"}) as server,
        asking(server, 200, body) as dialled,
    ):
        until(lambda: server.value('virtflow_history_serve_queries_total{outcome="failed"}') == 72, server)
        assert server.page("/healthz") == 200
        for sock in dialled[128:]:
            assert sock.recv(12) == b"HTTP/1.1 503"
        assert server.stop() == 0


def test_bodies_that_do_not_come_lock_nobody_out(history: Path, tmp_path: Path) -> None:
    """300 requests with one byte of their body each: health and others' requests are answered."""
    with serving(history, tmp_path) as server, ExitStack() as stack:
        for _ in range(300):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            sock.sendall(b"POST /api/v1/read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        assert server.page("/healthz") == 200
        assert server.read(SMALL) == (200, "")


def test_a_client_that_takes_nothing_makes_room(history: Path, tmp_path: Path) -> None:
    """Two answers of 50 MB and more that nobody reads keep both processes only until somebody else asks."""
    big = replace(EVERYTHING, matchers=(Matcher(Match.EQUAL, "__name__", "vm_memory_rss_bytes"),))
    with serving(history, tmp_path, ROLLED) as server:
        body = write_request(ReadRequest((big,) * 4))
        done: list[tuple[int, str]] = []
        with asking(server, 2, body):
            until(lambda: server.value('virtflow_history_serve_queries_total{outcome="answered"}') == 8, server)
            other = threading.Thread(target=lambda: done.append(server.read(SMALL)))
            other.start()
            other.join(60)
        assert done == [(200, "")]
