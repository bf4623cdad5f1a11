"""Settings of the simulator."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from virtflow.runtime.sections.rows import row


class Simulate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Synthetic hypervisors."""

    nodes: Annotated[int, row("Nodes to simulate.", "--nodes", ge=1, le=10000)] = 2
    vms: Annotated[int, row("VMs on each node.", "--vms", ge=0, le=100000)] = 20
    migrations: Annotated[int, row("VMs that migrate from node to node again and again.", "--migrations", ge=0, le=10000)] = 2
    seed: Annotated[int, row("Seed: the same one gives the same fleet.", "--seed")] = 1
    guests: Annotated[bool, row("The agents in the VMs' guests tell what only the guest knows.", "--guests")] = False
    stuck: Annotated[int, row("VMs on each node that hang for a minute in every two.", "--stuck", ge=0, le=100000)] = 0
