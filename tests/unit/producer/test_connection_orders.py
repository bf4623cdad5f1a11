"""The connections of a daemon, with every order of two threads tried: right with the lock, and wrong without any place that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.interleaved import Place, Scene, WatchedLock, fails, interleavings, places
from virtflow.producer.daemons import connections as connections_module
from virtflow.producer.daemons.connections import Connections
from virtflow.producer.hypervisor.messages import Lost, Open, Opened, OpenFailed, Retire, Returned, Submit

Build = Callable[[WatchedLock], Scene]


class Link:
    """A connection that knows whether a call is out on it."""

    def __init__(self) -> None:
        """Open."""
        self.alive = 1
        self.closed = 0

    def isAlive(self) -> int:  # noqa: N802, libvirt's own name
        return self.alive


class Daemon(Scene):
    """The connections of a daemon, without threads: what they give to the pool waits here until it is run."""

    def __init__(self, lock: WatchedLock) -> None:
        """Nothing is open, and the daemon takes connections."""
        self.lock = lock
        self.refuses = False
        self.links: list[Link] = []
        self.told: list[Any] = []
        self.tasks: list[Callable[[], None]] = []
        self.running: list[int] = []
        """The workers that a call is made for."""
        self.connections = Connections(self, self, lambda _: lambda: None, self)  # type: ignore[arg-type]
        self.connections._lock = lock  # type: ignore[assignment]
        self.arrange()

    def arrange(self) -> None:
        """What is there before the two threads begin."""

    def open(self, prepare: object) -> tuple[Link, int, Any]:
        del prepare
        if self.refuses:
            raise OSError("refused")
        link = Link()
        self.links.append(link)

        def close() -> None:
            link.closed += 1

        return link, 9_000_000, close

    def put(self, message: object) -> None:
        self.told.append(message)

    def submit(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)

    def next_task(self) -> None:
        self.tasks.pop(0)()

    def run_tasks(self) -> None:
        """What the pool's threads do, one after another."""
        while self.tasks:
            self.next_task()

    def opened(self, *numbers: int) -> None:
        for number in numbers:
            self.connections.perform(Open(number, "any"))
        self.run_tasks()

    def ask(self, worker: int, call: int) -> None:
        """Have a call made in which the pool's other threads do what waits."""

        def query(link: Link) -> None:
            assert not link.closed
            assert worker not in self.running, "two calls of a worker at once"
            self.running.append(worker)
            self.run_tasks()
            self.running.remove(worker)

        self.connections.perform(Submit(worker, call, query))

    def answers(self, kind: type[Opened | OpenFailed]) -> list[int]:
        return sorted(message.worker for message in self.told if isinstance(message, kind))

    def returned(self) -> list[int]:
        calls = [message for message in self.told if isinstance(message, Returned)]
        assert [call.error for call in calls] == [None] * len(calls)
        return [call.call for call in calls]

    def end(self) -> None:
        """All workers are retired: every connection that was ever opened is closed, once."""
        self.run_tasks()
        for number in list(self.connections._workers):
            self.connections.perform(Retire(number))
        self.run_tasks()
        assert [link.closed for link in self.links] == [1] * len(self.links)


class OpenWhileConnecting(Daemon):
    """A worker begins to wait while the main connection comes."""

    def arrange(self) -> None:
        self.connections.perform(Open(1, "any"))

    def first(self) -> None:
        self.connections.perform(Open(2, "any"))

    def second(self) -> None:
        self.next_task()

    def check(self) -> None:
        self.run_tasks()
        assert self.answers(Opened) == [1, 2]
        self.end()


class ConnectWhileOpening(OpenWhileConnecting):
    """The main connection comes while another worker begins to wait."""

    def first(self) -> None:
        OpenWhileConnecting.second(self)

    def second(self) -> None:
        OpenWhileConnecting.first(self)


class RefusedWhileOpening(ConnectWhileOpening):
    """The daemon refuses the main connection while another worker begins to wait."""

    def arrange(self) -> None:
        super().arrange()
        self.refuses = True

    def check(self) -> None:
        self.run_tasks()
        assert self.answers(OpenFailed) == [1, 2]
        self.end()


class SubmitWhileCalling(Daemon):
    """A worker gets another call while it makes its first one."""

    def arrange(self) -> None:
        self.opened(1)
        self.ask(1, 1)

    def first(self) -> None:
        self.ask(1, 2)

    def second(self) -> None:
        self.next_task()

    def check(self) -> None:
        self.run_tasks()
        self.ask(1, 9)
        self.run_tasks()
        assert self.returned() == [1, 2, 9]
        self.end()


class CallWhileSubmitting(SubmitWhileCalling):
    """A worker makes its calls while it gets two more."""

    def first(self) -> None:
        self.next_task()

    def second(self) -> None:
        self.ask(1, 2)
        self.ask(1, 3)

    def check(self) -> None:
        self.run_tasks()
        assert self.returned() == [1, 2, 3]
        self.end()


class RetireWhileConnecting(Daemon):
    """A worker that waits for the main connection is retired while that comes."""

    def arrange(self) -> None:
        for number in (1, 2):
            self.connections.perform(Open(number, "any"))

    def first(self) -> None:
        self.connections.perform(Retire(2))

    def second(self) -> None:
        self.next_task()

    def check(self) -> None:
        self.run_tasks()
        assert 1 in self.answers(Opened)
        self.end()


class TakeWhileTaking(Daemon):
    """Two calls take a connection."""

    def arrange(self) -> None:
        self.opened(1)
        self.taken: list[Any] = []

    def first(self) -> None:
        self.taken.append(self.connections._taken())

    def second(self) -> None:
        self.taken.append(self.connections._taken())

    def check(self) -> None:
        assert len({id(link.connection) for link in self.taken}) == 2
        self.give_all_back()

    def give_all_back(self) -> None:
        assert [link.connection.closed for link in self.taken] == [0] * len(self.taken), "a connection is closed while a call is out on it"
        for link in self.taken:
            self.connections._give_back(link)
        self.end()


class TakeWhileGivingBack(TakeWhileTaking):
    """A connection is opened for a call while another one's is given back."""

    def arrange(self) -> None:
        super().arrange()
        self.given = self.connections._taken()
        self.taken.append(self.connections._taken())

    def second(self) -> None:
        self.connections._give_back(self.given)

    def check(self) -> None:
        self.give_all_back()


class GiveBackWhileTaking(TakeWhileGivingBack):
    """A connection is given back while a call takes one."""

    def arrange(self) -> None:
        TakeWhileTaking.arrange(self)
        main, self.given = self.connections._taken(), self.connections._taken()
        self.connections._give_back(main)

    def first(self) -> None:
        self.connections._give_back(self.given)

    def second(self) -> None:
        self.taken += [self.connections._taken(), self.connections._taken()]


class RetireWhileTaking(TakeWhileTaking):
    """The last worker is retired while a call takes a connection."""

    def first(self) -> None:
        self.connections.perform(Retire(1))

    def second(self) -> None:
        self.taken.append(self.connections._taken())

    def check(self) -> None:
        self.run_tasks()
        self.give_all_back()


class LoseWhileConnecting(Daemon):
    """The workers of a lost connection are named while the next one comes."""

    def arrange(self) -> None:
        self.opened(1, 2)
        self.links[0].alive = 0
        self.connections.perform(Open(3, "any"))
        self.lost: list[Lost] = []

    def first(self) -> None:
        self.lost = self.connections.lost()

    def second(self) -> None:
        self.next_task()

    def check(self) -> None:
        self.run_tasks()
        assert self.lost in ([], [Lost(1), Lost(2)], [Lost(1), Lost(2), Lost(3)])
        self.end()


SCENES: tuple[Build, ...] = (
    OpenWhileConnecting,
    ConnectWhileOpening,
    RefusedWhileOpening,
    SubmitWhileCalling,
    CallWhileSubmitting,
    RetireWhileConnecting,
    RetireWhileTaking,
    TakeWhileTaking,
    TakeWhileGivingBack,
    GiveBackWhileTaking,
    LoseWhileConnecting,
)
PLACES = places(connections_module, "_lock")


@pytest.mark.parametrize("build", SCENES)
def test_every_order_of_two_threads_is_right(build: Build) -> None:
    """Wherever the first one is interrupted."""
    assert sum(1 for _ in interleavings(build, connections_module)) > 10


@pytest.mark.parametrize("place", PLACES, ids=[f"{number}-{place}" for number, place in enumerate(PLACES)])
def test_no_place_can_do_without_the_lock(place: Place) -> None:
    """With the lock taken everywhere else, some order of two threads has a wrong outcome."""
    assert any(fails(build, connections_module, place) for build in SCENES)
