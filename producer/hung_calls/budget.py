"""What of the cap is taken: calls that are lost, openings that hang, and what is under way and may yet be lost. Pure, like the captives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from virtflow.producer.hung_calls.breaker_types import CallOut, Openings


class Losing(Protocol):
    """Who else calls libvirt on this host, with calls that may not come back."""

    @property
    def lost(self) -> int:
        """How many have not."""


@dataclass(slots=True)
class Slots:
    """The slots of one host. Nothing is begun unless it could be lost too and the count still stay within ``cap``."""

    cap: int
    captured: dict[int, CallOut] = field(default_factory=dict)
    """Our calls that do not come back."""
    foreign: set[str] = field(default_factory=set)
    """VMs with a call in them that an earlier run of ours left behind."""
    polled: str = ""
    """The VM whose job is polled just now."""
    openings: Openings = field(default_factory=Openings)
    elsewhere: int = 0
    """Calls lost by the process that asks the guests' agents."""

    @property
    def lost(self) -> int:
        """What does not come back before a VM, or libvirtd, recovers."""
        return len(self.captured) + len(self.foreign) + self.openings.hanging + self.elsewhere

    @property
    def free(self) -> int:
        """How many calls to the monitors may still be lost: a poll and another connection's opening keep their slots while they are out."""
        return self.cap - self.lost - bool(self.polled) - self.openings.others

    def may_poll(self, asking: CallOut | None) -> bool:
        """Whether a poll may begin beside the call ``asking``, which shares its slot with the opening of its connection."""
        return not self.polled and self.free > max(asking is not None, self.openings.own)

    def may_open(self, asking: CallOut | None) -> bool:
        """Whether one more connection may be opened beside ``asking``, which takes a slot of its own once it is under way."""
        return self.free - self.openings.own - (asking is not None and asking.under_way) > 0
