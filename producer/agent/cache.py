"""Cache of the guests' answers while they are fresh. Pure.

Each command's answer is stored separately, so that a missing answer costs only its own data. Answers older than ``bound`` are omitted, not
repeated, whatever failed to renew them: the guest, libvirt, or the helper process.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from virtflow.producer.agent.answers import merged
from virtflow.producer.agent.ipc import AGENT, Command
from virtflow.schemas.catalogue.types import ABSENT_LONG
from virtflow.schemas.records import NAN, GuestSample

AGENT_TOLD = frozenset(AGENT) - {Command.INTERFACES}
ADDRESSES = (Command.INTERFACES, Command.LEASE, Command.ARP)
"""Who tells addresses, the best first."""


@dataclass(frozen=True, slots=True)
class Part:
    """One answer: requested at ``started`` (Unix seconds), received at ``at`` (monotonic seconds)."""

    sample: GuestSample
    started: float
    at: float


@dataclass(slots=True)
class _Guest:
    at: float
    up: int
    reason: str
    parts: dict[Command, Part] = field(default_factory=dict)
    shown: GuestSample | None = None
    shown_until: float = 0.0
    """Until when ``shown`` is what the parts say: the oldest one that is in it is then too old."""


class Held:
    """The newest answers of all guests. Times are monotonic seconds, except for those that are exported."""

    def __init__(self, bound: float) -> None:
        """Starts empty; answers older than ``bound`` (seconds) are omitted."""
        self._bound = bound
        self._guests: dict[str, _Guest] = {}

    def note(self, uuid: str, now: float, *, up: int, reason: str) -> None:
        """Records the result of the newest attempt: ``up`` is 1, 0 or absent, with the failure reason."""
        guest = self._guests.setdefault(uuid, _Guest(now, up, reason))
        guest.at, guest.up, guest.reason, guest.shown = now, up, reason, None

    def keep(self, uuid: str, command: Command, part: Part) -> None:
        """Stores an answer."""
        guest = self._guests.setdefault(uuid, _Guest(part.at, ABSENT_LONG, ""))
        guest.parts[command], guest.shown = part, None

    def renew(self, uuid: str) -> None:
        """Drops the guest's answers: it has booted or stopped."""
        if guest := self._guests.get(uuid):
            guest.parts.clear()
            guest.shown = None

    def drop(self, uuid: str) -> None:
        """Removes the VM: it is not asked any more."""
        self._guests.pop(uuid, None)

    def samples(self, now: float) -> dict[str, GuestSample]:
        """The sample of each VM at ``now``; none for a VM whose newest attempt is too old."""
        return {uuid: self._shown(guest, now) for uuid, guest in self._guests.items() if now - guest.at <= self._bound}

    def _shown(self, guest: _Guest, now: float) -> GuestSample:
        """The guest's sample. It is built only after a change, because every round asks for it."""
        if guest.shown is None or now > guest.shown_until:
            guest.shown = self._sample(guest, now)
            guest.shown_until = min((part.at for part in guest.parts.values() if now - part.at <= self._bound), default=now) + self._bound
        return guest.shown

    def _sample(self, guest: _Guest, now: float) -> GuestSample:
        fresh = {command: part for command, part in guest.parts.items() if now - part.at <= self._bound}
        told = [part for command, part in fresh.items() if command in AGENT_TOLD]
        by = next((fresh[command] for command in ADDRESSES if command in fresh and fresh[command].sample.address_source), None)
        shown = [*told, by] if by else told
        sample = merged(part.sample for part in shown)
        answered = told + [part for part in (fresh.get(Command.INTERFACES),) if part]
        return replace(
            sample,
            taken=min((part.started for part in answered), default=NAN),
            addresses_taken=by.started if by else NAN,
            agent_up=guest.up,
            reason=guest.reason,
            cut=sample.cut if shown else ABSENT_LONG,
            dropped=sample.dropped if shown else ABSENT_LONG,
        )
