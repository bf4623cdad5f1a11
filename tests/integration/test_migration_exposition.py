"""What the options make of /metrics is clean to Prometheus' own checker."""

from __future__ import annotations

import pytest

from tests.support.prometheus import check_metrics
from tests.support.vm_samples import sample, text_of, uuid
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.migrations import MigrationText, Options
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import NAMES
from virtflow.schemas.records import VmMigration


@pytest.mark.parametrize("absent", ["NaN", "-1"])
@pytest.mark.parametrize("result", ["running", "completed"])
def test_promtool_finds_nothing(absent: str, result: str) -> None:
    """With every migration metric of every VM: names, units, types and values."""
    fleet = Fleet(VmText(NAMES), NodeText(NAMES), 3600.0, MigrationText(NAMES, Options(True, absent, True)))  # noqa: FBT003, the options
    for number in (1, 2):
        fleet.take_metrics(sample(number), 0.0)
    fleet.take_migration(VmMigration(uuid=uuid(1), source="a", destination="b", result=result, revision=1, memory_iteration=3), 1.0)
    text = text_of(fleet, 1.0)
    assert text.count("\nvm_migration_") >= 2 * 38
    check_metrics(text)
