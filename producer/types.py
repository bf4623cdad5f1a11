"""Values that several rooms of the producer share. Imports nothing of the producer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Struct


class Answer(Struct, frozen=True, gc=False):
    """What one call said of one VM: ``began`` on the monotonic clock orders it, ``started`` is the same in Unix seconds."""

    data: dict[str, object]
    began: float
    started: float


class Vm(Struct, frozen=True, gc=False):
    """A VM as the list of all VMs has it."""

    uuid: str
    name: str
    data: dict[str, object]


class Listed(Struct, frozen=True, gc=False):
    """Every VM of the host by its UUID, in libvirt's order."""

    vms: dict[str, Vm]


class Batch(Struct, frozen=True, gc=False):
    """What one of several calls that make up an ask brought, and when that one began, as in ``Answer``."""

    found: Listed | dict[str, dict[str, object]]
    began: float
    started: float


class Polled(Struct, frozen=True, gc=False):
    """What a poll of a VM's job brought: libvirt's statistics of it and their ``moment`` (Unix seconds); without a job the VM's state."""

    name: str = ""
    statistics: dict[str, Any] = {}
    state: int = -1
    reason: int = -1
    moment: float = float("nan")


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The result of a health check, which never waits for a VM.

    ``occupied`` is for how long (seconds) a call has been in each VM's monitor, 0 when none is; ``processes`` the state of each QEMU's
    main thread as one letter, where it can be read.
    """

    occupied: Mapping[str, float] = field(default_factory=dict)
    processes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HypervisorEvent:
    """libvirt announced something about a VM, or a poll of its job did: ``what`` names it, ``detail`` has its numbers."""

    uuid: str
    name: str
    what: str
    detail: tuple[object, ...] = ()
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is exported of a VM: whether its monitor answers (None: not known), and whether it may be asked at all."""

    responsive: bool | None
    probed: bool


UNREADABLE: Final = (ValueError, OverflowError, TypeError, SystemError)
"""What libvirt's binding makes of an answer that it can't read, as of text that is no UTF-8."""
STOPPED: Final = frozenset("TtD")
"""States of QEMU's main thread in which it does not answer: stopped, traced, waiting for storage."""
STUCK: Final = Verdict(responsive=False, probed=True)
RESPONSIVE: Final = Verdict(responsive=True, probed=True)
UNDECIDED: Final = Verdict(responsive=None, probed=True)
NOT_PROBED: Final = Verdict(responsive=None, probed=False)
