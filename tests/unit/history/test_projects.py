"""Whose a VM is: tenants, deletion and reports agree, whatever platform made the VM."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.support.history_tenants import tenants_of, write_tenants
from virtflow.history.maintenance.forgetting.subjects import project
from virtflow.history.query.report import Report, report
from virtflow.history.storage.delta import Store
from virtflow.history.storage.scope import Owned, owned_by
from virtflow.history.storage.table_schemas import INVENTORY_ROWS, SAMPLES
from virtflow.history.writer.rows.record_rows import record_rows
from virtflow.producer.records.domain_xml import inventory
from virtflow.runtime.settings import History
from virtflow.schemas.projects import project_id_of

START = 1_790_002_800.0
VM = str(UUID(int=1))
NOVA = (
    "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:owner><nova:project uuid='p-1'>Shop"
    "</nova:project></nova:owner></nova:instance>"
)


@pytest.mark.parametrize(
    ("metadata", "tenant"),
    [("<kubevirt xmlns='http://kubevirt.io'><uid>1</uid></kubevirt>", "shop"), (NOVA, "p-1"), (NOVA.replace("p-1", ""), "Shop")],
    ids=["kubevirt", "openstack", "a name alone"],
)
def test_a_vm_is_its_platforms_projects(metadata: str, tenant: str) -> None:
    found = inventory(VM, "shop_web-1", f"<domain type='kvm'><metadata>{metadata}</metadata></domain>")
    assert project_id_of(found) == tenant
    rows = record_rows(INVENTORY_ROWS, [replace(found, collected=START)])
    assert owned_by(tenant, rows) == [Owned(VM, None, None)]


def test_tenants_deletion_and_reports_tell_the_same_projects(tmp_path: Path) -> None:
    samples, inventories = write_tenants(tmp_path, START)
    settings = History(path=str(tmp_path), hourly_days=36_500)
    month = time.strftime("%Y-%m", time.gmtime(START))
    used = {row["project_id"]: row["vms"] for row in report(Store(settings), settings, Report("usage", month, "project")).to_pylist()}
    assert set(used) == {*tenants_of(inventories), ""}  # one VM has no inventory
    assert used["shop"] == 1
    for tenant in tenants_of(inventories):
        seen = Store(settings, tenant).open(SAMPLES).dataset().to_table(columns=["uuid"]).column("uuid").unique().to_pylist()
        assert len(seen) == used[tenant] > 0
        assert {owned.uuid for owned in project(Store(settings), tenant).owned} == set(seen)
    assert len({sample.uuid for sample in samples}) == 8
