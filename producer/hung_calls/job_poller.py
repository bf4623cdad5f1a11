"""Running jobs (migrations, and the saves, dumps and backups that look like them) are polled until they end.

A job is found by an event that only a job makes, and once at the start among all VMs whose monitor is known to answer. libvirt's
``controlInfo`` is of no use for that: it says "job" while a call holds the VM's lock, and "ok" throughout a migration (measured on
9.0). A poll is a monitor call like any other: it needs a lease of the same budget, skips VMs that do not answer, and when it
hangs it is left alone with its worker. One poll is out at a time, beside those that hang. The search asks many VMs in one call, since
a poll of each by itself would cost the producer more than all its samples do.

``Jobs`` decides and never waits: its calls go into its connection's outbox. Belongs to the sampling thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from virtflow.producer.hung_calls.budget import CallBudget, Kind, Lease
from virtflow.producer.hung_calls.reconnecting import Call, ReconnectingConnection, WorkerHandle, end
from virtflow.producer.hypervisor.queries import NO_JOB, Position, find_jobs, poll_job
from virtflow.producer.types import HypervisorEvent, Polled
from virtflow.schemas.jobs import JobType, Lifecycle, Result
from virtflow.schemas.jobs import Kind as EventKind

POLL: Final = "job"
SEARCH_VMS: Final = 256
"""VMs that one search asks at most: polls of running jobs wait for it."""
NEVER: Final = float("inf")
GRACE_POLLS: Final = 2
"""Polls without a job before it counts as gone: the event that tells the end may come a moment after the job has."""
STARTS: Final = frozenset({(Lifecycle.SUSPENDED, 0), (Lifecycle.SUSPENDED, 1), (Lifecycle.SUSPENDED, 7)})
"""Life-cycle events (with their details) that a job may be behind: paused for a save or a dump, or for a switch-over."""


@dataclass(slots=True)
class _Watch:
    """A VM whose job is polled: when next, whether a poll has seen the job, how many polls have not."""

    due: float
    name: str = ""
    seen: bool = False
    missing: int = 0
    result: str = ""


@dataclass(slots=True)
class _Poll:
    """The call that is out: a poll of one VM's job, or a search for jobs in many VMs (``asked``)."""

    call: Call
    lease: Lease
    position: Position
    asked: tuple[str, ...] = ()


class MayAsk(Protocol):
    """Which VMs may be asked at all; the breaker knows."""

    def may_ask(self, uuid: str, *, healthy: bool) -> bool:
        """Whether a call may go into this VM now; with ``healthy`` only if its monitor is known to answer."""


@dataclass(slots=True)
class Jobs:
    """All VMs whose jobs are polled, each ``every`` seconds; a poll that takes longer than ``stall_timeout`` hangs, which ``hung`` is told."""

    connection: ReconnectingConnection
    vms: MayAsk
    budget: CallBudget
    emit: Callable[[HypervisorEvent], None]
    hung: Callable[[Kind, str, float], None]
    every: float
    stall_timeout: float
    polls: dict[str, int] = field(default_factory=dict)
    _watched: dict[str, _Watch] = field(default_factory=dict)
    _candidates: dict[str, None] = field(default_factory=dict)
    _poll: _Poll | None = None
    _hanging: dict[Call, _Poll] = field(default_factory=dict)

    @property
    def running(self) -> int:
        """Jobs that were seen running at their last poll."""
        return sum(watch.seen and not watch.missing for watch in self._watched.values())

    # -- what happens

    def happened(self, event: HypervisorEvent, now: float) -> None:
        """An event that only a job makes begins to watch it; one that says how it ended ends that."""
        if event.what == EventKind.COMPLETED:
            self._watched.pop(event.uuid, None)
        elif event.what == EventKind.ITERATION or (event.what == EventKind.LIFECYCLE and event.detail[:2] in STARTS):
            self.watch(event.uuid, event.name, now)
        elif event.what == EventKind.STATUS and event.uuid in self._watched and event.detail:
            self._watched[event.uuid].result = str(event.detail[0])

    def watch(self, uuid: str, name: str, now: float) -> None:
        """Poll this VM's job from now on."""
        self._candidates.pop(uuid, None)
        self._watched.setdefault(uuid, _Watch(now, name))

    def look(self, uuids: list[str]) -> None:
        """Ask each of these VMs once, as soon as its monitor is known to answer, whether it has a job; one that is polled anyway is not."""
        self._candidates.update(dict.fromkeys(uuid for uuid in uuids if uuid not in self._watched))

    # -- the polls

    def tick(self, now: float) -> None:
        """Make the poll or the search that is due, or leave one alone that hangs."""
        for left in self._hanging.values():
            self._follow(left, now)
        if self._poll is not None:
            if now - self._poll.position.at[1] > self.stall_timeout:
                self._leave(self._poll, now)
            return
        if self.connection.worker is None:
            if self.connection.opening or self._candidates or any(watch.due <= now for watch in self._watched.values()):
                self.connection.tick(now)
            return
        self._begin(self.connection.worker, now)

    @property
    def due(self) -> float:
        """The next deadline."""
        if self._poll is not None:
            return self._poll.position.at[1] + self.stall_timeout
        soonest = min((watch.due for watch in self._watched.values()), default=NEVER)
        if self.connection.worker is not None:
            return soonest
        # Without a connection there is nothing to do before there is one, or before it is tried again.
        return max(soonest, self.connection.due) if soonest < NEVER or not self._candidates else self.connection.due

    def take(self, call: Call, now: float) -> None:
        """A poll has returned; one that was left alone says nothing any more, but its lease is free again."""
        if (left := self._hanging.pop(call, None)) is not None:
            end(left.lease, call)
        poll = self._poll
        if poll is None or call is not poll.call:
            return
        self._poll = None
        end(poll.lease, call)
        if call.error is not None and not call.alive:
            self.connection.drop(call.worker, now, str(call.error))
            self._count("failed")
            self._put_off(poll.position.at[0], now)
        elif not poll.asked:
            self._answered(poll.position.at[0], call, now)
        elif call.error is not None:
            self._count("failed")
        else:
            self._count("answered", len(poll.asked))
            for uuid, polled in call.result:
                self._runs(uuid, polled, now)

    def _begin(self, worker: WorkerHandle, now: float) -> None:
        """Poll the VM that is due, or search for jobs where no VM is; nothing where no VM may be asked."""
        due = sorted((watch.due, uuid) for uuid, watch in self._watched.items() if watch.due <= now)
        for _, uuid in due:
            if self.vms.may_ask(uuid, healthy=False) and (lease := self.budget.acquire(Kind.JOB, uuid)) is not None:
                self._poll = _Poll(worker.submit(POLL, poll_job(uuid), now), lease, Position(now, uuid))
                return
            self._count("skipped")
            self._put_off(uuid, now)
        asked = tuple(islice((uuid for uuid in self._candidates if self._may_search(uuid)), SEARCH_VMS))
        if asked and (lease := self.budget.acquire(Kind.JOB)) is not None:
            for uuid in asked:
                del self._candidates[uuid]
            position = Position(now)
            self._poll = _Poll(worker.submit(POLL, find_jobs(asked, position), now), lease, position, asked)

    def _may_search(self, uuid: str) -> bool:
        return self.vms.may_ask(uuid, healthy=True) and not self.budget.hangs_in(uuid, Kind.JOB)

    def _put_off(self, uuid: str, now: float) -> None:
        if uuid in self._watched:
            self._watched[uuid].due = now + self.every

    def _leave(self, poll: _Poll, now: float) -> None:
        uuid, _ = poll.position.at
        self._poll = None
        self._hanging[poll.call] = poll
        self._count("hung")
        poll.lease.abandon(uuid)
        self.connection.leave(poll.call.worker, now)
        self.hung(Kind.JOB, uuid, now)
        self._put_off(uuid, now)
        self._candidates.update(dict.fromkeys(other for other in poll.asked if other != uuid))

    def _follow(self, left: _Poll, now: float) -> None:
        """A search that was left alone goes on when its VM recovers, and may hang in another one."""
        uuid, since = left.position.at
        if uuid != left.lease.vm and now - since > self.stall_timeout:
            left.lease.abandon(uuid)
            self.hung(Kind.JOB, uuid, now)

    def _answered(self, uuid: str, call: Call, now: float) -> None:
        if call.error is not None and getattr(call.error, "get_error_code", lambda: 0)() not in NO_JOB:
            self._count("failed")
            self._put_off(uuid, now)
            return
        self._count("answered")
        polled = call.result or Polled()
        if polled.statistics.get("type", JobType.NONE) != JobType.NONE:
            self._runs(uuid, polled, now)
        elif (watch := self._watched.get(uuid)) is not None:
            self._missing(uuid, watch, call, now)

    def _runs(self, uuid: str, polled: Polled, now: float) -> None:
        """The VM has a job."""
        watch = self._watched.setdefault(uuid, _Watch(now, polled.name))
        watch.seen, watch.missing, watch.due = True, 0, now + self.every
        kind = polled.statistics["type"]
        watch.result = {JobType.FAILED: Result.FAILED.value, JobType.CANCELLED: Result.CANCELLED.value}.get(kind, watch.result)
        self.emit(HypervisorEvent(uuid, polled.name, EventKind.JOB.value, (polled.statistics,), polled.moment))

    def _missing(self, uuid: str, watch: _Watch, call: Call, now: float) -> None:
        """No job where one was expected: after some polls it is gone. Where no event has reported its end, we do."""
        watch.missing += 1
        watch.due = now + self.every
        if watch.missing < GRACE_POLLS:
            return
        del self._watched[uuid]
        if watch.seen:
            polled = call.result or Polled()
            detail = (polled.state, polled.reason, watch.result)
            self.emit(HypervisorEvent(uuid, watch.name, EventKind.JOB_GONE.value, detail, call.started + call.seconds))

    def _count(self, outcome: str, vms: int = 1) -> None:
        self.polls[outcome] = self.polls.get(outcome, 0) + vms
