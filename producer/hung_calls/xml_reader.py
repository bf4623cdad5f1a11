"""Reads the VMs' XML on a connection and worker of its own, because from libvirt 11.0 on that call can wait for a VM. Pure.

VMs that may be stuck are never read. Where the call may wait on this version, only VMs are read whose monitor has answered, with a lease
of the budget. A read that hangs is left alone with its worker, and counted; what it says in the end is used as any other answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from virtflow.producer.hung_calls.breaker import Breaker
from virtflow.producer.hung_calls.budget import Kind, Lease
from virtflow.producer.hung_calls.reconnecting import Call, ReconnectingConnection, end
from virtflow.producer.hypervisor.call_safety import LibvirtCall, may_wait
from virtflow.producer.hypervisor.messages import Progress
from virtflow.producer.hypervisor.queries import read_xml

XML: Final = "xml"
NEVER: Final = float("inf")


@dataclass(slots=True)
class _Reading:
    """A call under way: the VMs it reads in order, how many it has read, when it got that far, and its lease."""

    call: Call
    uuids: list[str]
    lease: Lease | None
    since: float
    done: int = 0

    @property
    def inside(self) -> str:
        """The VM that is being read."""
        return self.uuids[self.done] if self.done < len(self.uuids) else ""


@dataclass(slots=True)
class XmlReader:
    """Which VMs' XML is read when. ``off`` says whether a VM has no QEMU; ``hung`` is told of a VM in which a read hangs."""

    connection: ReconnectingConnection
    breaker: Breaker
    off: Callable[[str], bool]
    hung: Callable[[Kind, str, float], None]
    stall_timeout: float
    version: int = 0
    _wanted: Sequence[str] = ()
    _most: int = 0
    _seconds: float = 0.0
    _until: float = -NEVER
    _reading: _Reading | None = None
    _hanging: dict[Call, _Reading] = field(default_factory=dict)
    _found: dict[str, str] = field(default_factory=dict)

    # -- the round

    def want(self, uuids: Sequence[str], most: int, now: float, seconds: float) -> None:
        """Read the first ``most`` of these VMs that may be read, in one call that takes ``seconds`` at most; forget those wanted before."""
        self._wanted, self._most = uuids, most
        self._seconds, self._until = seconds, now + seconds

    def pending(self, now: float) -> bool:
        """Whether it is worth to wait for an XML now."""
        return now < self._until and (self._reading is not None or (bool(self._wanted) and self.connection.opening > 0))

    def collect(self) -> dict[str, str]:
        """What has been read since the last time: the XML by UUID, "" where it could not be had."""
        found, self._found = self._found, {}
        return found

    def tick(self, now: float, *, settled: bool) -> None:
        """Leave a read alone that hangs, or begin the next one. ``settled``: no monitor call is under way in this round."""
        self.connection.tick(now)
        if (reading := self._reading) is not None:
            if now - reading.since > self.stall_timeout:
                self._leave(reading, now)
            return
        if self._wanted and self.connection.worker is not None and (settled or not self._may_wait):
            self._begin(now)

    @property
    def due(self) -> float:
        """The next deadline."""
        return min(self.connection.due, NEVER if self._reading is None else self._reading.since + self.stall_timeout)

    # -- what arrives

    def progress(self, call: Call, message: Progress, now: float) -> None:
        """A VM has been read."""
        self._found[message.uuid] = message.value
        if (reading := self._of(call)) is not None:
            reading.done += 1
            reading.since = now

    def take(self, call: Call, now: float) -> None:
        """A read has returned, in whatever round."""
        reading = self._of(call)
        if reading is None:
            return
        self._hanging.pop(call, None)
        if reading is self._reading:
            self._reading = None
        if reading.lease is not None:
            end(reading.lease, call)
        if call.error is not None and not call.alive:
            self.connection.drop(call.worker, now, str(call.error))
        elif call.error is not None and reading.inside:
            self._found[reading.inside] = ""

    # -- what is decided

    @property
    def _may_wait(self) -> bool:
        return may_wait(LibvirtCall.XML, self.version)

    def _of(self, call: Call) -> _Reading | None:
        reading = self._reading
        return reading if reading is not None and reading.call is call else self._hanging.get(call)

    def _readable(self, uuid: str) -> bool:
        if self._may_wait:
            return self.off(uuid) or (self.breaker.may_ask(uuid, healthy=True) and not self.breaker.suspects(uuid))
        return not self.breaker.suspects(uuid)

    def _begin(self, now: float) -> None:
        chosen = list(islice((uuid for uuid in self._wanted if self._readable(uuid)), self._most))
        if not chosen or self.connection.worker is None:
            return
        lease = None
        if self._may_wait:
            budget = self.breaker.budget
            if (lease := budget.acquire(Kind.XML, spare=min(1, budget.limit - 1))) is None:
                return
        self._wanted = ()
        self._until = now + self._seconds
        call = self.connection.worker.submit(XML, read_xml(chosen, self._until), now)
        self._reading = _Reading(call, chosen, lease, now)

    def _leave(self, reading: _Reading, now: float) -> None:
        """The read hangs, whatever is known of this version."""
        self._reading = None
        self._hanging[reading.call] = reading
        if reading.lease is None:
            reading.lease = self.breaker.budget.adopt(Kind.XML, reading.inside)
        else:
            reading.lease.abandon(reading.inside)
        self.connection.leave(reading.call.worker, now)
        self.hung(Kind.XML, reading.inside, now)
