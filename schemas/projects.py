"""The project that a VM belongs to, from its inventory: OpenStack knows ids and names, KubeVirt knows namespaces.

Tenants, deletion, reports and the exporter use the same fields in the same order.
"""

from __future__ import annotations

from typing import Final

from virtflow.schemas.records import VmInventory

PROJECT_IDS: Final = ("project_id", "namespace", "project")
"""Fields that identify a project; the first one that is not empty counts."""
PROJECT_NAMES: Final = ("project", "namespace", "project_id")
"""Fields that name a project for people; the first one that is not empty counts."""


def project_id_of(inventory: VmInventory) -> str:
    """What identifies the VM's project, "" where nothing does."""
    return next((found for field in PROJECT_IDS if (found := getattr(inventory, field))), "")
