"""Which VMs are asked for a job that no event announces. Pure.

A migration that copies disks first (``--copy-storage-all``) is invisible on its source until the disks are copied: libvirt sends no
event, and no field of the bulk statistics, of ``controlInfo`` or of the domain XML changes (measured on 9.0; the destination's events
reach another node's producer). Only ``jobStats`` reports it. libvirt saves a VM's status when such a job begins, so that a VM is asked when
its status file has changed (``hypervisor/status_files.py``). One without a file that can be seen is asked once in a while, a share of them
each round.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from virtflow.producer.records.merge import STATE
from virtflow.producer.types import Vm
from virtflow.schemas.states import BLOCKED, RUNNING

FRESH_SECONDS: Final = 1.0
"""A status that was saved less than that ago is looked at again in the next round: a job is there a moment after its file."""


@dataclass(slots=True)
class JobDiscovery:
    """Asks each running VM when its status was saved, or else once in ``every_seconds`` (0: nobody ever).

    The latter is evenly spread over the rounds of ``interval_seconds``.
    """

    every_seconds: float
    interval_seconds: float
    round_number: int = -1
    _known: dict[str, float] = field(default_factory=dict)
    """When the status was saved that each VM has been asked for, by UUID."""

    def next_round(self, vms: Iterable[Vm], saved: Mapping[str, float] | None, at: float) -> list[str]:
        """The UUIDs of the VMs to ask in this round. ``saved`` is when the status of each was, by name, and ``at`` now (Unix seconds)."""
        self.round_number += 1
        if not self.every_seconds:
            return []
        running = [vm for vm in vms if vm.data.get(STATE) in {RUNNING, BLOCKED}]
        if saved is None:
            return [vm.uuid for vm in running if self._turn(vm.uuid)]
        known, self._known = self._known, {}
        asked = []
        for vm in running:
            if (when := saved.get(vm.name)) is None:
                if self._turn(vm.uuid):
                    asked.append(vm.uuid)
                continue
            asked_before = known.get(vm.uuid) == when
            if not asked_before:
                asked.append(vm.uuid)
            if asked_before or not 0 <= at - when < FRESH_SECONDS:
                self._known[vm.uuid] = when
        return asked

    def _turn(self, uuid: str) -> bool:
        """Whether it is the VM's turn in this round."""
        slots = max(1, int(self.every_seconds / self.interval_seconds))
        return zlib.crc32(uuid.encode()) % slots == self.round_number % slots
