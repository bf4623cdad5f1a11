"""Fault 24, the history's part: TERM ends ``history serve`` in time, whatever it is doing, and an instance that does not come back is replaced."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.criteria import HEALTH_SECONDS, Criteria
from tests.support.figures import figure
from tests.support.history import Writer, fleet_samples, key_of, produce, wait_for_samples, writing
from tests.support.history_serving import Server, serving
from tests.support.history_years import DAY, HOUR, hours_of_vm, write_years
from tests.support.processors import eventually
from tests.support.s3 import ObjectStore
from virtflow.history.remote_read.protocol.wire import Asked, Hints, Match, Matcher, ReadRequest, write_request
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.schemas.topics import METRICS

NOW = int(time.time()) // DAY * DAY
STOP_SECONDS = 10.0
QUERIES = 8


def request(days: int) -> bytes:
    start = NOW - days * DAY
    matchers = (Matcher(Match.EQUAL, "__name__", "vm_memory_rss_bytes"),)
    return write_request(
        ReadRequest((Asked(start * 1000, NOW * 1000, matchers, Hints(step=HOUR * 1000, start=start * 1000, end=NOW * 1000)),) * 16)
    )


def ends_in_time(server: Server, what: str) -> None:
    """With 0, or with 1 in the middle of a query that can't be ended: nothing is lost by that, and the log says so."""
    began = time.monotonic()
    code = server.stop()
    assert code == 0 or (code == 1 and "ended in the middle of a call" in server.log.read_text())
    figure(24, f"from TERM to the end of `history serve`, {what}", time.monotonic() - began, "s")


def under_way(server: Server, body: bytes) -> list[threading.Thread]:
    """Queries that wait for their answer, more than are worked on at a time."""
    threads = [threading.Thread(target=server.send, args=(body, 2 * STOP_SECONDS), daemon=True) for _ in range(QUERIES)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "under load"])
def test_term_ends_it_in_time(tmp_path: Path, *, busy: bool) -> None:
    """Also with queries under way, and with a client that has sent half a request."""
    path = tmp_path / "history"
    write_years(path, {number: hours_of_vm(number, NOW - 60 * DAY, NOW) for number in range(1, 6)})
    with serving(path, tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(b"POST /api/v1/read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
        threads = under_way(server, request(50)) if busy else []
        ends_in_time(server, "under load" if busy else "idle")
        for thread in threads:
            thread.join(2 * STOP_SECONDS)
            assert not thread.is_alive(), "a client was left waiting"


def test_a_writer_whose_storage_hangs_at_the_start(tmp_path: Path, criteria: Criteria) -> None:
    """Its pages answer and say so, and TERM ends it in time: it has taken nothing yet."""
    with Broker(tmp_path / "broker") as broker, ObjectStore(tmp_path) as store:
        assert virtflow("topics", "create", "--bootstrap-servers", broker.address, "--partitions", "2").returncode == 0
        store.signal(signal.SIGSTOP)
        writer = Writer(broker.address, store.history.path, tmp_path, store.settings)
        with writing(writer):
            writer.until(lambda: "has not answered yet" in writer.ready() and store.history.path in writer.ready())
            began = time.monotonic()
            assert writer.stop() in {0, 1}
            figure(24, "from TERM to the end of `history write`, while its storage hangs", time.monotonic() - began, "s")
            store.signal(signal.SIGCONT)
            writer.start()
            writer.until(lambda: writer.ready() == "ready")
            assert writer.stop() == 0
    assert criteria.slowest() < HEALTH_SECONDS


@pytest.mark.parametrize("ends", [True, False], ids=["it is told to stop", "the storage goes on"])
def test_storage_that_hangs_at_the_start_is_waited_for(tmp_path: Path, *, ends: bool) -> None:
    """It takes connections and answers nothing: the pages answer at once and say so, and TERM ends the process."""
    with ObjectStore(tmp_path) as store:
        Store(store.history).make(SAMPLES)
        store.signal(signal.SIGSTOP)
        with serving(store.history.path, tmp_path, store.settings, page="/healthz") as server:
            assert server.page("/healthz", HEALTH_SECONDS) == 200
            assert server.page("/readyz", HEALTH_SECONDS) == 503
            if ends:
                ends_in_time(server, "while its storage hangs")
                assert server.process.returncode == 0
                return
            store.signal(signal.SIGCONT)
            eventually("readiness", lambda: server.page("/readyz") == 200)


PARTITIONS = 4
ROUNDS = 3
SETTLED_SECONDS = 90.0
REPLACED_SECONDS = 30.0
"""A group gives up a member of its own name after 12 s. Where nobody says so, that is 45 s, in which its partitions idle."""


def held(writer: Writer) -> float:
    """How many partitions it has; 0 while it starts."""
    return 0.0 if writer.ready().startswith("no answer") else writer.value("virtflow_history_partitions")


def test_the_partitions_of_an_instance_that_leaves_for_good_are_taken_over(tmp_path: Path) -> None:
    """Its name keeps them while it is restarted; when it does not come back, what is produced meanwhile is stored, once."""
    with Broker(tmp_path / "broker") as broker:
        assert virtflow("topics", "create", "--bootstrap-servers", broker.address, "--partitions", str(PARTITIONS)).returncode == 0
        names = ("stays", "leaves")
        for name in names:
            (tmp_path / name).mkdir()
        # The product's own time limits, not those of the other tests.
        stays, leaves = (
            Writer(broker.address, tmp_path / "history", tmp_path / name, {"VIRTFLOW_HISTORY_INSTANCE": name, "VIRTFLOW_KAFKA_CLIENT": ""})
            for name in names
        )
        before, after = (list(fleet_samples(1, 40, rounds)) for rounds in (range(ROUNDS), range(ROUNDS, 2 * ROUNDS)))
        with writing(stays):
            stays.until(lambda: held(stays) > 0, SETTLED_SECONDS)
            everything = held(stays)
            with writing(leaves):
                stays.until(lambda: 0 < held(stays) < everything == held(stays) + held(leaves), SETTLED_SECONDS)
                produce(broker.address, METRICS.name, before)
                wait_for_samples(tmp_path / "history", len(before), SETTLED_SECONDS, stays)
                assert leaves.stop() == 0
            left = time.monotonic()
            produce(broker.address, METRICS.name, after)
            stays.until(lambda: held(stays) == everything, SETTLED_SECONDS)
            stored = wait_for_samples(tmp_path / "history", len(before) + len(after), SETTLED_SECONDS, stays)
            took = time.monotonic() - left
            assert stays.stop() == 0
    assert stored == Counter(map(key_of, before + after))
    assert took < REPLACED_SECONDS
    figure(24, "until the partitions of an instance that left for good are written again", took, "s")
