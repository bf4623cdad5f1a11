"""`history serve` within its limits: what asks for too much is refused with the limit's name, and the server goes on answering others."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment
from tests.support.history_years import DAY, HOUR, hours_of_vm, write_years
from virtflow.history.remote_read.wire import Asked, Hints, Match, Matcher, ReadRequest, write_request
from virtflow.runtime.settings import History

NOW = int(time.time()) // DAY * DAY


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of two VMs."""
    path = tmp_path_factory.mktemp("limits") / "history"
    write_years(path, {number: hours_of_vm(number, NOW - 10 * DAY, NOW) for number in (1, 2)})
    return path


@contextmanager
def serving(history: Path, folder: Path, env: dict[str, str]) -> Iterator[int]:
    """The server with settings of its own; its port."""
    (port,) = free_ports(1)
    command = [*DIES_WITH_US, str(PROGRAM), "history", "serve", "--history", str(history), "--listen", f"127.0.0.1:{port}"]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(env), stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 20
        while page(port, "/readyz") != 200:
            assert time.monotonic() < deadline, (folder / "serve.log").read_text()
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        assert process.wait(10) == 0


def page(port: int, path: str) -> int:
    """The status of a page, 0 without an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def read(port: int, asked: Asked) -> tuple[int, str]:
    """The status and text of an answer; "" where it is one."""
    return send(port, write_request(ReadRequest((asked,))))


def send(port: int, body: bytes) -> tuple[int, str]:
    """The same for any body; status 0 where the server hung up."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/read", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310, our own
            reply.read()
            return int(reply.status), ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def of(metric: str, name: str, start: int, step: int = HOUR) -> Asked:
    """A range up to now, as Prometheus asks for it."""
    matchers = (Matcher(Match.EQUAL, "__name__", metric), Matcher(Match.REGEX, "name", name))
    return Asked(start * 1000, NOW * 1000, matchers, Hints(step=step * 1000, start=start * 1000, end=NOW * 1000))


BEYOND = {
    "history.serve_series": ("1", of("vm_memory_rss_bytes", "vm-.*", NOW - 3 * DAY)),
    "history.serve_samples": ("100", of("vm_memory_rss_bytes", "vm-1", NOW - 9 * DAY)),
    "history.serve_days": ("400", of("vm_memory_rss_bytes", "vm-1", NOW - 500 * DAY)),
    "steps": ("", of("vm_memory_rss_bytes", "vm-1", NOW - 300 * DAY, step=1)),
}
"""Settings, what they are set to, and a query that asks for more; the number of steps is fixed."""


@pytest.mark.parametrize("limit", BEYOND)
def test_beyond_a_limit_is_refused_by_name_and_within_it_answered(limit: str, history: Path, tmp_path: Path) -> None:
    value, asked = BEYOND[limit]
    env = {f"VIRTFLOW_{limit.upper().replace('.', '_')}": value} if value else {}
    with serving(history, tmp_path, env) as port:
        status, said = read(port, asked)
        assert status == 400
        assert limit in said
        assert "\n" not in said.strip()
        assert read(port, of("vm_memory_rss_bytes", "vm-1", NOW - 3 * DAY)) == (200, "")


def test_a_query_that_takes_too_long_is_given_up(history: Path, tmp_path: Path) -> None:
    with serving(history, tmp_path, {"VIRTFLOW_HISTORY_QUERY_SECONDS": "1"}) as port:
        asked = of("vm_memory_rss_bytes", "vm-1", NOW - 9 * DAY)
        assert read(port, asked) == (200, "")
        status, said = send(port, write_request(ReadRequest((asked,) * 64)))
        assert status == 503
        assert "history.query_seconds" in said
        assert page(port, "/healthz") == 200


def test_a_body_that_is_too_large_is_not_read(history: Path, tmp_path: Path) -> None:
    with serving(history, tmp_path, {}) as port:
        assert send(port, bytes(8 << 20))[0] in {0, 400, 413}
        assert page(port, "/healthz") == 200


def test_nobody_else_is_served_by_default() -> None:
    """Both of the history's addresses are this machine's own unless somebody says otherwise."""
    assert History().listen.startswith("127.0.0.1:")
    assert History().serve_listen.startswith("127.0.0.1:")
