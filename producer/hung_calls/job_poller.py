"""Running jobs (migrations, and the saves, dumps and backups that look like them) are polled until they end.

A job is found by an event that only a job makes, and once at the start among all VMs whose monitor is known to answer. libvirt's
``controlInfo`` is of no use for that: it says "job" while a call holds the VM's lock, and "ok" throughout a migration (measured on
9.0). A poll is a monitor call like any other: it obeys the same cap of calls that may be lost, skips
VMs that do not answer, and when it does not come back it is left alone with its lane. One poll is out at a time.

``Jobs`` decides and never waits; the sampling thread asks it what is due, as it does with the other tiers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import libvirt

from virtflow.producer.hypervisor.connection import Lane, Link
from virtflow.producer.hypervisor.mailbox import Call, Happened
from virtflow.producer.hypervisor.queries import Polled, poll_job
from virtflow.schemas.jobs import JobType, Kind, Lifecycle, Result

POLL: Final = "job"
NEVER: Final = float("inf")
GONE: Final = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED})
"""What libvirt answers where there is no job to ask about: no such VM, not running, or it is the destination's side."""
ENDED: Final = frozenset({JobType.COMPLETED, JobType.FAILED, JobType.CANCELLED})
GRACE_POLLS: Final = 2
"""Polls without a job before it counts as gone: the event that tells the end may come a moment after the job has."""
STARTS: Final = frozenset({(Lifecycle.SUSPENDED, 0), (Lifecycle.SUSPENDED, 1), (Lifecycle.SUSPENDED, 7)})
"""Life-cycle events (with their details) that a job may be behind: paused for a save or a dump, or for a switch-over."""


class Cap(Protocol):
    """What the captured calls allow; the monitor tier knows."""

    def may_poll(self, uuid: str, *, vouched: bool) -> bool:
        """Whether a call into this VM may be made now; with ``vouched`` only if its monitor is known to answer."""

    def returned(self, uuid: str) -> None:
        """The call that was allowed has come back."""

    def lost(self, uuid: str) -> None:
        """The call that was allowed has not come back."""


@dataclass(slots=True)
class _Watch:
    """A VM whose job is polled: when next, whether a poll has seen the job, how many polls have not."""

    due: float
    name: str = ""
    seen: bool = False
    missing: int = 0
    result: str = ""


@dataclass(slots=True)
class Jobs:
    """All VMs whose jobs are polled, each ``every`` seconds; ``patience`` is how long a poll may take before it is left alone."""

    link: Link
    cap: Cap
    emit: Callable[[Happened], None]
    every: float
    patience: float
    polls: dict[str, int] = field(default_factory=dict)
    _watched: dict[str, _Watch] = field(default_factory=dict)
    _candidates: dict[str, None] = field(default_factory=dict)
    _call: Call | None = None
    _asked: str = ""

    @property
    def running(self) -> int:
        """Jobs that were seen running at their last poll."""
        return sum(watch.seen and not watch.missing for watch in self._watched.values())

    # -- what happens

    def happened(self, event: Happened, now: float) -> None:
        """An event that only a job makes begins to watch it; one that says how it ended ends that."""
        if event.what == Kind.COMPLETED:
            self._watched.pop(event.uuid, None)
        elif event.what == Kind.ITERATION or (event.what == Kind.LIFECYCLE and event.detail[:2] in STARTS):
            self.watch(event.uuid, event.name, now)
        elif event.what == Kind.STATUS and event.uuid in self._watched and event.detail:
            self._watched[event.uuid].result = str(event.detail[0])

    def watch(self, uuid: str, name: str, now: float) -> None:
        """Poll this VM's job from now on."""
        self._watched.setdefault(uuid, _Watch(now, name))

    def look(self, uuids: list[str]) -> None:
        """Ask each of these VMs once, as soon as its monitor is known to answer, whether it has a job."""
        self._candidates.update(dict.fromkeys(uuids))

    # -- the polls

    def tend(self, now: float) -> None:
        """Make the poll that is due, or leave one alone that does not come back."""
        call = self._call
        if call is not None:
            if now - call.began > self.patience:
                self._leave(call, now)
            return
        if self.link.lane is None:
            if self._candidates or any(watch.due <= now for watch in self._watched.values()):
                self.link.tend(now)
            return
        uuid, vouched = self._next(now)
        if not uuid:
            return
        self._asked = uuid
        self._call = self.link.lane.submit(POLL, poll_job(uuid, known=not vouched))

    @property
    def due(self) -> float:
        """When ``tend`` has something to do at the latest."""
        if self._call is not None:
            return self._call.began + self.patience
        soonest = min((watch.due for watch in self._watched.values()), default=NEVER)
        if self.link.lane is not None:
            return soonest
        # Without a connection there is nothing to do before there is one, or before it is tried again.
        return max(soonest, self.link.due) if soonest < NEVER or not self._candidates else self.link.due

    def take(self, call: Call, now: float) -> None:
        """A poll has come back."""
        if call is not self._call:
            return
        uuid, self._call = self._asked, None
        self.cap.returned(uuid)
        if call.error is not None and not call.lane.alive:
            self.link.drop(call.lane, now, str(call.error))
            self._count("failed")
            self._put_off(uuid, now)
            return
        self._answered(uuid, call, now)

    def opened(self, lane: Lane) -> bool:
        """Take the tier's connection."""
        return self.link.opened(lane)

    def _next(self, now: float) -> tuple[str, bool]:
        """The VM to ask now, and whether only because it is asked about once at the start; "" for none."""
        due = sorted((watch.due, uuid) for uuid, watch in self._watched.items() if watch.due <= now)
        for _, uuid in due:
            if self.cap.may_poll(uuid, vouched=False):
                return uuid, False
            self._count("skipped")
            self._put_off(uuid, now)
        for uuid in list(self._candidates):
            if self.cap.may_poll(uuid, vouched=True):
                del self._candidates[uuid]
                return uuid, True
        return "", False

    def _put_off(self, uuid: str, now: float) -> None:
        if uuid in self._watched:
            self._watched[uuid].due = now + self.every

    def _leave(self, call: Call, now: float) -> None:
        self._call = None
        self._count("captured")
        self.link.leave(call.lane, now)
        self.cap.lost(self._asked)
        self._put_off(self._asked, now)

    def _answered(self, uuid: str, call: Call, now: float) -> None:
        if call.error is not None and getattr(call.error, "get_error_code", lambda: 0)() not in GONE:
            self._count("failed")
            self._put_off(uuid, now)
            return
        self._count("answered")
        polled = call.result or Polled()
        name, kind = polled.name, polled.statistics.get("type", JobType.NONE)
        watch = self._watched.get(uuid)
        if kind != JobType.NONE:
            watch = self._watched.setdefault(uuid, _Watch(now, name))
            watch.seen, watch.missing, watch.due = True, 0, now + self.every
            watch.result = {JobType.FAILED: Result.FAILED.value, JobType.CANCELLED: Result.CANCELLED.value}.get(kind, watch.result)
            self.emit(Happened(uuid, name, Kind.JOB.value, (polled.statistics,), polled.moment))
        elif watch is not None:
            self._missing(uuid, watch, (polled.state, polled.reason), now)

    def _missing(self, uuid: str, watch: _Watch, state: tuple[int, int], now: float) -> None:
        """No job where one was expected: after a moment's grace it is gone, and without an end that was told we tell it."""
        watch.missing += 1
        watch.due = now + self.every
        if watch.missing < GRACE_POLLS:
            return
        del self._watched[uuid]
        if watch.seen:
            self.emit(Happened(uuid, watch.name, Kind.JOB_GONE.value, (*state, watch.result), time.time()))

    def _count(self, outcome: str) -> None:
        self.polls[outcome] = self.polls.get(outcome, 0) + 1
