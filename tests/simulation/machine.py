"""The machines that the programs run on, and when the world begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.support.virtual_time.kernel import Host, Kernel, Process

if TYPE_CHECKING:
    from tests.simulation.disk import Disk

EPOCH: Final = 1_795_478_400.0 - 1_060.0
"""Unix seconds at the kernel's 0: a run that begins at 1000 crosses an hour's edge a minute later."""
BEGINS: Final = 1_000.0


@dataclass(slots=True, eq=False)
class Machine(Host):
    """A host with its disk, and whether its network reaches the broker, and how slowly."""

    disk: Disk = field(kw_only=True)
    connected: bool = True
    delay_seconds: float = 0.002


def machine_of(process: Process) -> Machine:
    """The machine that a process runs on."""
    host = process.host
    assert isinstance(host, Machine)
    return host


def here(kernel: Kernel) -> Machine:
    """The machine of the process whose task runs now."""
    return machine_of(kernel.current.process)
