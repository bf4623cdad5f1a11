"""What a round of sampling brings, and where rounds come from: libvirt (``sampler.py``) or a recording of it (``replay.py``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from virtflow.producer.records.node_health import BY_SETTINGS, Daemons, HungCalls, Versions
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.runtime.version import version
from virtflow.schemas.records import VmInventory, VmSnapshot


@dataclass(frozen=True, slots=True)
class Round:
    """What libvirt said in one round.

    ``collected`` is its begin in Unix seconds. ``up`` says whether libvirt answered; ``late`` whether VMs lack their monitor groups
    because those had not answered in time. ``seconds`` is how long each tier took; ``drops`` what could not be had, since the start.
    ``node`` is where a recording was made, "" for libvirt here and now. ``daemons`` is set where several daemons of the host are asked.
    """

    collected: float
    up: bool
    late: bool = False
    readings: tuple[Reading, ...] = ()
    inventories: Mapping[str, VmInventory] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Versions = field(default_factory=lambda: Versions(version()))
    reconnects: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    jobs: int = 0
    job_polls: Mapping[str, int] = field(default_factory=dict)
    node: str = ""
    hung_calls: HungCalls = field(default_factory=HungCalls)
    daemons: Daemons = BY_SETTINGS


class Source(Protocol):
    """Where rounds come from."""

    def round(self) -> Round:
        """The next round; returns by its deadline whatever happens."""

    def wait(self, until: float) -> None:
        """Let the monotonic clock come to ``until`` and take what arrives meanwhile; may return earlier."""

    def learn(self, vms: Sequence[VmSnapshot]) -> None:
        """Learn what the record of the round says of the VMs: other devices than before make a VM's XML due."""

    def interrupt(self) -> None:
        """Have ``round`` or ``wait`` return at once, from whatever thread: it is time to stop."""

    def close(self, seconds: float) -> bool:
        """Let go of everything within ``seconds``; False when a thread is still in a call that does not return."""
