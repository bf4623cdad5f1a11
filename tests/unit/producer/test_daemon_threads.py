"""What sampling and the pool's threads share where there are many daemons, used by all at once while threads are switched at every line."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from tests.support.lab import await_true
from tests.support.torn import at_every_line
from virtflow.producer.daemons import call_pool
from virtflow.producer.daemons import connections as connections_module
from virtflow.producer.daemons.call_pool import CallPool
from virtflow.producer.daemons.connections import Connections
from virtflow.producer.hypervisor.messages import Open, Retire, Returned, Submit

TURNS = 400
SUBMITTERS = 4
WORKERS = 5
SECONDS = 60.0


@pytest.fixture(autouse=True)
def torn() -> Iterator[None]:
    """Threads are switched at every line of the two modules."""
    with at_every_line(call_pool, connections_module):
        yield


def test_the_pool_of_calls() -> None:
    """Each task runs once, whoever submits it; no more threads stay than should, and the pool knows of each of them."""
    pool, numbers, done = CallPool(threads=3), itertools.count(), SimpleQueue[int]()

    def submit() -> None:
        for _ in range(TURNS):
            number = next(numbers)
            pool.submit(lambda number=number: done.put(number))  # type: ignore[misc]

    submitters = [threading.Thread(target=submit) for _ in range(SUBMITTERS)]
    for thread in submitters:
        thread.start()
    for thread in submitters:
        thread.join()
    assert pool.threads <= 3
    assert pool.close(SECONDS)
    assert sorted(done.get_nowait() for _ in range(done.qsize())) == list(range(SUBMITTERS * TURNS))
    assert (pool._waiting, pool._began, pool._threads) == (0, {}, {})


class Link:
    """A connection that knows how many calls are out on it, and how often it was closed."""

    def __init__(self) -> None:
        """Open."""
        self.out = 0
        self.most = 0
        self.closed = 0

    def isAlive(self) -> int:  # noqa: N802, libvirt's own name
        return 1

    def use(self) -> None:
        self.out += 1
        self.most = max(self.most, self.out)
        time.sleep(0)  # another thread's turn
        self.out -= 1


class Host:
    """What opens connections, and takes what the pool's threads say."""

    def __init__(self) -> None:
        """None is open."""
        self.links: list[Link] = []
        self.told: SimpleQueue[Any] = SimpleQueue()

    def open(self, prepare: object) -> tuple[Link, int, Any]:
        del prepare
        link = Link()
        self.links.append(link)

        def close() -> None:
            link.closed += 1

        return link, 9_000_000, close

    def put(self, message: object) -> None:
        self.told.put(message)


def test_the_connections_of_a_daemon() -> None:
    """Every call returns once, a worker's in their order; no connection carries two, and each is closed once when nobody needs it."""
    host, pool, calls = Host(), CallPool(threads=4), itertools.count()
    connections = Connections(host, host, lambda _: None, pool)  # type: ignore[arg-type, return-value]
    asked: dict[int, list[int]] = defaultdict(list)
    for number in range(WORKERS):
        connections.perform(Open(number, "any"))
    opened = {host.told.get(timeout=SECONDS).worker for _ in range(WORKERS)}
    assert opened == set(range(WORKERS))
    for turn in range(TURNS):
        number = turn % WORKERS
        asked[number].append(call := next(calls))
        connections.perform(Submit(number, call, Link.use))
        connections.lost()
    returned = [host.told.get(timeout=SECONDS) for _ in range(TURNS)]
    assert all(isinstance(one, Returned) and one.error is None for one in returned)
    assert sorted(one.call for one in returned) == list(range(TURNS))
    for number in range(WORKERS):
        mine = [one.call for one in returned if one.call % WORKERS == number]
        assert mine == asked[number]
    for number in range(WORKERS):
        connections.perform(Retire(number))
    await_true(lambda: all(link.closed for link in host.links), SECONDS, "all connections are closed")
    assert pool.close(SECONDS)
    assert max(link.most for link in host.links) == 1
    assert {link.closed for link in host.links} == {1}
