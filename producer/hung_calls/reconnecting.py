"""A connection that is kept open: pure. What it decides goes into an outbox as actions; observations come from the workers' threads.

Lost connections are opened again after growing, jittered pauses. An opening may hang, so it needs a lease of the budget; one that is
overdue counts as hung, and is used after all when it succeeds first.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from typing import Any, Final

from virtflow.producer.hung_calls.budget import CallBudget, Kind, Lease
from virtflow.producer.hypervisor.messages import Action, Open, Query, Retire, Returned, Submit
from virtflow.runtime import settings
from virtflow.runtime.secrets import plain_url

OPENINGS: Final = 3
"""Overdue openings that may hang at a time; each holds a thread and a socket."""
FIRST_PAUSE_SECONDS: Final = 0.2
NEVER: Final = float("inf")

_LOGGER: Final = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Call:
    """One call to libvirt: when it began (both clocks), and once ``ended`` its result or its error.

    ``started`` is Unix seconds and goes into records; ``began`` is the monotonic clock's and orders results. Before the call has returned
    ``began`` is when it was submitted. ``alive`` is whether its connection still stood when it returned.
    """

    number: int
    worker: WorkerHandle
    purpose: str
    began: float
    started: float = float("nan")
    seconds: float = 0.0
    ended: bool = False
    result: Any = None
    error: BaseException | None = None
    alive: bool = True


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """A worker as the deciding code knows it."""

    number: int
    name: str
    began: float
    outbox: Outbox
    libvirt_version: int = 0
    calls: int = 0
    """Calls under way."""

    @property
    def idle(self) -> bool:
        """Whether no call is under way or waits for its turn."""
        return self.calls == 0

    def submit(self, purpose: str, query: Query, now: float) -> Call:
        """Have the worker make a call."""
        return self.outbox.submit(self, purpose, query, now)

    def retire(self) -> None:
        """Let the worker end as soon as its thread is free."""
        self.outbox.add(Retire(self.number))


class Outbox:
    """The actions that have been decided and not been taken yet, and the calls that have not returned."""

    def __init__(self) -> None:
        """Nothing has been decided."""
        self._actions: list[Action] = []
        self._calls: dict[int, Call] = {}
        self._number = 0

    def add(self, action: Action) -> None:
        """Decide on an action."""
        self._actions.append(action)

    def take(self) -> list[Action]:
        """The actions, each handed out once."""
        actions, self._actions = self._actions, []
        return actions

    def open(self, name: str, now: float) -> WorkerHandle:
        """Begin to open a worker."""
        self._number += 1
        self.add(Open(self._number, name))
        return WorkerHandle(self._number, name, now, self)

    def submit(self, worker: WorkerHandle, purpose: str, query: Query, now: float) -> Call:
        """Begin a call."""
        self._number += 1
        call = self._calls[self._number] = Call(self._number, worker, purpose, now)
        worker.calls += 1
        self.add(Submit(worker.number, call.number, query))
        return call

    def call(self, number: int) -> Call | None:
        """A call under way."""
        return self._calls.get(number)

    def returned(self, message: Returned) -> Call | None:
        """A call has returned: the call, with its result."""
        call = self._calls.pop(message.call, None)
        if call is not None:
            call.worker.calls -= 1
            call.began, call.started, call.seconds, call.ended = message.began, message.started, message.seconds, True
            call.result, call.error, call.alive = message.result, message.error, message.alive
        return call


def end(lease: Lease, call: Call) -> None:
    """A call has returned: give back its lease, unless it returned only because its connection is lost."""
    if call.alive:
        lease.release()
    else:
        lease.leave_behind()


@dataclass(slots=True)
class _Opening:
    worker: WorkerHandle
    lease: Lease


@dataclass(slots=True)
class ReconnectingConnection:
    """One connection kept open. ``essential``: one opening of it is made even when the budget has no room.

    ``connects`` counts the successes, but for connections that replace one that was left to a hung call.
    """

    name: str
    config: settings.Libvirt
    outbox: Outbox
    budget: CallBudget
    longest_pause: float
    rng: random.Random = field(default_factory=random.Random)
    essential: bool = False
    worker: WorkerHandle | None = None
    connects: int = 0
    error: str = ""
    _openings: list[_Opening] = field(default_factory=list)
    _pause: float = FIRST_PAUSE_SECONDS
    _next: float = 0.0
    _refused: bool = False
    _replacing: bool = False

    def tick(self, now: float) -> None:
        """Begin to open a connection where there is none, the pause is over and the budget has room."""
        if self._openings:
            self._mark_overdue(now)
        if self.worker is not None or now < self._next or len(self._openings) >= OPENINGS:
            return
        if self._openings and not self._openings[-1].lease.hung:
            return
        lease = self._lease()
        self._refused = lease is None
        if lease is not None:
            self._openings.append(_Opening(self.outbox.open(self.name, now), lease))

    def opened(self, number: int, libvirt_version: int) -> bool:
        """A worker of this connection is open; False when it is not needed any more and has been retired, or is not this connection's."""
        if (opening := self._ended(number)) is None:
            return False
        if self.worker is not None:
            opening.worker.retire()
            return False
        self.worker, self.error, self._pause = opening.worker, "", FIRST_PAUSE_SECONDS
        self.worker.libvirt_version = libvirt_version
        self.connects += not self._replacing
        self._replacing = False
        return True

    def failed(self, number: int, error: str, now: float) -> None:
        """An opening has failed: wait longer before the next one."""
        if self._ended(number) is None:
            return
        self.error = error
        _LOGGER.warning("connecting to %s: %s", plain_url(self.config.uri), error)
        self._wait(now)

    def drop(self, worker: WorkerHandle, now: float, why: str) -> None:
        """Give up a connection that is lost; a new one is opened after a pause."""
        worker.retire()
        if worker is self.worker:
            _LOGGER.warning("connection %s to %s is lost: %s", self.name, plain_url(self.config.uri), why)
            self.worker, self.error = None, why
            self._wait(now)

    def leave(self, worker: WorkerHandle, now: float) -> None:
        """Leave a worker to its hung call; a new connection is opened at once."""
        worker.retire()
        if worker is self.worker:
            self.worker, self._next, self._replacing = None, now, True

    @property
    def opening(self) -> int:
        """How many openings are out, overdue ones among them."""
        return len(self._openings)

    def close(self) -> None:
        """Let go of everything."""
        for worker in (self.worker, *(opening.worker for opening in self._openings)):
            if worker is not None:
                worker.retire()
        self.worker = None
        self._openings.clear()

    @property
    def due(self) -> float:
        """When ``tick`` has something to do again; infinity while the connection stands, and until something else happens."""
        overdue = [opening.worker.began + self.config.connect_timeout_seconds for opening in self._openings if not opening.lease.hung]
        if self.worker is not None or self._refused or len(self._openings) >= OPENINGS:
            return min(overdue, default=NEVER)
        return max(self._next, min(overdue, default=self._next))

    def _lease(self) -> Lease | None:
        lease = self.budget.acquire(Kind.OPENING)
        if lease is None and self.essential and not self._openings:
            lease = self.budget.acquire_essential(Kind.OPENING)
        return lease

    def _mark_overdue(self, now: float) -> None:
        for opening in self._openings:
            if not opening.lease.hung and now - opening.worker.began >= self.config.connect_timeout_seconds:
                opening.lease.abandon()
                if self.worker is None:
                    self.error = f"no answer within {self.config.connect_timeout_seconds:g} s"
                    _LOGGER.warning("connecting to %s: %s", plain_url(self.config.uri), self.error)

    def _ended(self, number: int) -> _Opening | None:
        """The opening by that worker, which is over."""
        for opening in self._openings:
            if opening.worker.number == number:
                self._openings.remove(opening)
                opening.lease.release()
                return opening
        return None

    def _wait(self, now: float) -> None:
        longest = min(self.longest_pause, self.config.reconnect_maximum_seconds)
        self._next = now + min(self._pause, longest) * self.rng.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, longest)
