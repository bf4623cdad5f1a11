"""``virtflow metrics list`` is the catalogue."""

from __future__ import annotations

import json

from tests.support.command import in_process
from virtflow.schemas.catalogue.metrics import METRICS
from virtflow.schemas.catalogue.types import Group


def test_json_has_every_metric_in_the_catalogues_order() -> None:
    told = json.loads(in_process("metrics", "list", "--json").stdout)
    assert [one["name"] for one in told] == [metric.name for metric in METRICS]
    cpu = next(one for one in told if one["name"] == "vm_block_read_seconds_total")
    assert cpu["labels"] == ["uuid", "name", "device"]
    assert cpu["unit"] == "seconds"
    assert cpu["source"] == {"kind": "libvirt", "field": "block.N.rd.times", "conversion": "nanoseconds"}


def test_groups_can_be_chosen() -> None:
    told = json.loads(in_process("metrics", "list", "--json", "--group", "core", "--group", "node").stdout)
    assert {one["group"] for one in told} == {"core", "node"}
    assert len(told) == sum(metric.group in {Group.CORE, Group.NODE} for metric in METRICS)


def test_table_has_one_line_per_metric() -> None:
    lines = in_process("metrics", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [metric.name for metric in METRICS]
