"""A history of several projects, one VM of which changes its owner: what each may see is told by plain loops over the records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from tests.support.guest_samples import told
from tests.support.history import fleet_inventories, fleet_samples
from virtflow.history.maintenance.rollup_job import Rolling
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import EVENT_ROWS, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES, Table
from virtflow.history.writer.dedup import Changes, Sequences, filters
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import VmEvent, VmInventory, VmMetrics, VmMigration

ROUNDS = 120
INTERVAL = 60.0
MOVED_AT = 61
"""The round from which the first VM is another project's."""


def write_tenants(path: Path, start: float) -> tuple[list[VmMetrics], list[VmInventory]]:
    """Two hours of eight VMs, rolled up, and their inventory; the records that were written."""
    samples = [replace(sample, guest=[told()]) for sample in fleet_samples(1, 8, range(ROUNDS), interval=INTERVAL, start=start)]
    inventories = fleet_inventories(1, 8, start=start)
    vm = inventories[0]
    unnamed = replace(inventories[1], project_id="")
    kubevirt = replace(inventories[2], platform="kubevirt", project_id="", project="", namespace="shop")
    moved = replace(vm, project_id="f" * 32, project="another", collected=start + MOVED_AT * INTERVAL, sequence=MOVED_AT)
    inventories = [vm, unnamed, kubevirt, *inventories[3:-1], moved]  # the last VM is nobody's
    write_records(path, samples, inventories)
    return samples, inventories


def write_records(path: Path, samples: Sequence[VmMetrics], inventories: Sequence[VmInventory]) -> None:
    """A history of these records, rolled up."""
    store = Store(History(path=str(path)))
    writer = TableWriter(store.make(SAMPLES), Sequences())
    writer.begin(["raw"])
    for offset, sample in enumerate(samples):
        writer.take("raw", offset, sample)
    writer.commit()
    describing = TableWriter(store.make(INVENTORY_ROWS), Changes())
    describing.begin(["inventory"])
    for offset, inventory in enumerate(inventories):
        describing.take("inventory", offset, inventory)
    describing.commit()
    rolling = Rolling(store, History(raw_days=3650), lambda *_: None)
    rolling.run(rolling.due())


def write_happened(path: Path, samples: list[VmMetrics]) -> None:
    """Events and migrations of the same VMs."""
    store = Store(History(path=str(path)))
    told: dict[Table, Sequence[VmEvent | VmMigration]] = {EVENT_ROWS: events_of(samples), MIGRATION_ROWS: migrations_of(samples)}
    for table, records in told.items():
        writer = TableWriter(store.make(table), filters()[table.name])
        writer.begin(["records"])
        for offset, record in enumerate(records):
            writer.take("records", offset, record)
        writer.commit()


def events_of(samples: list[VmMetrics]) -> list[VmEvent]:
    """An event of each VM at every tenth round."""
    return [
        VmEvent(uuid=each.uuid, node=each.node, boot_id="b", sequence=number, time=each.collected, kind="lifecycle", event=2)
        for number, each in enumerate(samples)
        if each.sequence % 10 == 1
    ]


def migrations_of(samples: list[VmMetrics]) -> list[VmMigration]:
    """A migration of each VM at every twentieth round."""
    return [
        VmMigration(
            uuid=each.uuid,
            id=f"{each.uuid}-{each.sequence}",
            source="a",
            destination="b",
            result="running",
            updated_timestamp_seconds=each.collected,
        )
        for each in samples
        if each.sequence % 20 == 1
    ]


def owner_of(inventories: list[VmInventory], uuid: str, at: float) -> str:
    """Whose a VM was at a time, "" where it is nobody's."""
    said = sorted((i.collected, project_of(i)) for i in inventories if i.uuid == uuid)
    before = [owner for collected, owner in said if collected <= at]
    return before[-1] if before else said[0][1] if said else ""


def project_of(inventory: VmInventory) -> str:
    """The project by which a tenant is told: a platform has ids, or namespaces, or names alone."""
    return inventory.project_id or inventory.namespace or inventory.project


def tenants_of(inventories: list[VmInventory]) -> list[str]:
    """All of them."""
    return sorted({project_of(inventory) for inventory in inventories})
