"""Which VMs are asked for a job that no event announces. Pure.

A migration that copies disks first (``--copy-storage-all``) is invisible on its source until the disks are copied: libvirt sends no
event, and no field of the bulk statistics, of ``controlInfo`` or of the domain XML changes (measured on 9.0; the destination's events
reach another node's producer). Only ``jobStats`` reports it. So every running VM is asked once in a while, a share of them each round.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from virtflow.producer.records.merge import STATE
from virtflow.producer.types import Vm
from virtflow.schemas.states import BLOCKED, RUNNING


@dataclass(slots=True)
class JobDiscovery:
    """Asks each running VM once in ``every_seconds`` (0: never), evenly spread over the rounds of ``interval_seconds``."""

    every_seconds: float
    interval_seconds: float
    round_number: int = -1

    def next_round(self, vms: Iterable[Vm]) -> list[str]:
        """The UUIDs of the VMs to ask in this round."""
        self.round_number += 1
        if not self.every_seconds:
            return []
        slots = max(1, int(self.every_seconds / self.interval_seconds))
        slot = self.round_number % slots
        return [vm.uuid for vm in vms if vm.data.get(STATE) in {RUNNING, BLOCKED} and zlib.crc32(vm.uuid.encode()) % slots == slot]
