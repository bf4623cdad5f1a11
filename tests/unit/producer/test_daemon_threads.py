"""What sampling and the pool's threads share where there are many daemons, used by all at once while threads are switched where it hurts."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, defaultdict
from queue import SimpleQueue
from typing import Any

import pytest

from tests.support.lab import await_true
from tests.support.torn import at_every_instruction, at_every_line
from virtflow.producer.daemons import call_pool
from virtflow.producer.daemons import connections as connections_module
from virtflow.producer.daemons.call_pool import NEVER, CallPool
from virtflow.producer.daemons.connections import Connections
from virtflow.producer.hypervisor.messages import Lost, Open, Opened, OpenFailed, Retire, Returned, Submit

TURNS = 150
SUBMITTERS = 4
WORKERS = 3
CALLS = 2
BURSTS = 4
YIELDS = 200
CONNECTION_TURNS = 4
THREADS_MAX = 6
SECONDS = 60.0


def test_the_pool_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task runs once, whoever submits it; there are never more threads than allowed, and the pool knows of each of them.

    Every call counts as one that takes long, so that threads come and go while calls are submitted.
    """
    monkeypatch.setattr(call_pool, "SLOW_SECONDS", 0.0)
    pool, numbers, done = CallPool(threads=3, most=THREADS_MAX), itertools.count(), SimpleQueue[int]()

    def submit() -> None:
        for _ in range(TURNS):
            number = next(numbers)
            pool.submit(lambda number=number: done.put(number))  # type: ignore[misc]

    submitters = [threading.Thread(target=submit) for _ in range(SUBMITTERS)]
    most = 0
    with at_every_line(call_pool):
        for thread in submitters:
            thread.start()
        while any(thread.is_alive() for thread in submitters) or pool.due < NEVER:
            pool.tick(time.monotonic())
            most = max(most, pool.threads)
        assert pool.close(SECONDS)
    assert 3 < most <= THREADS_MAX
    assert sorted(done.get_nowait() for _ in range(done.qsize())) == list(range(SUBMITTERS * TURNS))
    assert (pool._waiting, pool._began, pool._threads) == (0, {}, {})


class Link:
    """A connection that knows how many calls are out on it, and how often it was closed."""

    def __init__(self) -> None:
        """Open."""
        self.alive = 1
        self.out = 0
        self.most = 0
        self.closed = 0

    def isAlive(self) -> int:  # noqa: N802, libvirt's own name
        return self.alive

    def use(self) -> None:
        self.out += 1
        self.most = max(self.most, self.out)
        for _ in range(YIELDS):  # other threads' turns, in which they would take the same connection, or the worker's next call
            time.sleep(0)
        self.out -= 1


class Host:
    """What opens connections, and takes what the pool's threads say. Main connections are refused now and then."""

    def __init__(self) -> None:
        """None is open."""
        self.links: list[Link] = []
        self.told: SimpleQueue[Any] = SimpleQueue()
        self._openings = itertools.count()

    def open(self, prepare: object) -> tuple[Link, int, Any]:
        time.sleep(0)  # as in ``use``
        if prepare is not None and next(self._openings) % 3 == 1:
            raise OSError("refused")
        link = Link()
        self.links.append(link)

        def close() -> None:
            link.closed += 1

        return link, 9_000_000, close

    def put(self, message: object) -> None:
        self.told.put(message)


class Sampling:
    """The sampling thread: it opens workers, has them make calls, and retires them at once; what came back, by worker."""

    def __init__(self, host: Host, pool: CallPool) -> None:
        """No worker is open."""
        self.asked: dict[int, list[int]] = defaultdict(list)
        self.returned: dict[int, list[int]] = defaultdict(list)
        self.overlapped = False
        """Whether two calls of a worker were under way at once."""
        self._host = host
        self._connections = Connections(host, host, lambda _: None, pool)  # type: ignore[arg-type, return-value]
        self._numbers = itertools.count()
        self._worker_of: dict[int, int] = {}
        self._under_way: Counter[int] = Counter()
        self._opening: set[int] = set()
        self._open: list[int] = []

    def turn(self) -> None:
        self._open.clear()
        for _ in range(WORKERS):
            self._begin()
        while self._opening:
            assert all(isinstance(one, Lost) for one in self._connections.lost())
            self._take()
        for burst in range(BURSTS):
            for worker in self._open * CALLS:
                self._submit(worker)
            if burst < BURSTS - 1:  # the pool's threads find that a worker has no more calls while the next ones are submitted
                self.finish()
        for worker in self._open:
            self._connections.perform(Retire(worker))

    def finish(self) -> None:
        while sum(map(len, self.returned.values())) < len(self._worker_of):
            self._take()

    def _submit(self, worker: int) -> None:
        call = len(self._worker_of)
        self._worker_of[call] = worker
        self.asked[worker].append(call)

        def query(link: Link) -> None:
            self._under_way[worker] += 1
            self.overlapped |= self._under_way[worker] > 1
            link.use()
            self._under_way[worker] -= 1

        self._connections.perform(Submit(worker, call, query))

    def _begin(self) -> None:
        self._opening.add(number := next(self._numbers))
        self._connections.perform(Open(number, "any"))

    def _take(self) -> None:
        match self._host.told.get(timeout=SECONDS):
            case Opened(worker):
                self._opening.remove(worker)
                self._open.append(worker)
            case OpenFailed(worker):
                self._opening.remove(worker)
                self._begin()
            case Returned(call, error=None):
                self.returned[self._worker_of[call]].append(call)
            case other:
                pytest.fail(f"{other}")


def test_the_connections_of_a_daemon() -> None:
    """Every call returns once, a worker's in their order; no connection carries two, and each is closed once when nobody needs it."""
    host, pool = Host(), CallPool(threads=4)
    sampling = Sampling(host, pool)
    with at_every_instruction(connections_module):
        for turn in range(CONNECTION_TURNS):
            if turn % 3 == 2:  # the daemon has restarted
                for link in host.links:
                    link.alive = 0
            sampling.turn()
        sampling.finish()
        await_true(lambda: all(link.closed for link in host.links), SECONDS, "all connections are closed")
    assert pool.close(SECONDS)
    assert sampling.returned == sampling.asked
    assert not sampling.overlapped
    assert max(link.most for link in host.links) == 1
    assert {link.closed for link in host.links} == {1}
