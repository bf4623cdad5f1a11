"""No label of a scrape is longer than the setting says, whichever text of a record it comes from."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct, structs

from tests.support.fleet_samples import migration
from tests.support.vm_samples import everything, inventory, status, text_of
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.migrations import MigrationText, Options
from virtflow.exporter.render.node import AGE, UP, NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import NAMES
from virtflow.schemas.records import NodeHealth

LIMIT = 64
LONG = "\u4e16" * 100
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def long(value: Any, name: str = "") -> Any:  # noqa: ANN401, any field of a record
    """The value with every text in it made long, dictionaries' keys included."""
    if isinstance(value, str):
        return f"{LONG} {name} {value}"
    if isinstance(value, list):
        return [long(one, name) for one in value]
    if isinstance(value, dict):
        return {long(key, name): one for key, one in value.items()}
    if isinstance(value, Struct):
        return structs.replace(value, **{one.name: long(getattr(value, one.name), one.name) for one in structs.fields(value)})
    return value


def health() -> NodeHealth:
    """Every count by a word has one."""
    words = {one.name: {"word": 1} for one in structs.fields(NodeHealth) if isinstance(getattr(NodeHealth(), one.name), dict)}
    return structs.replace(NodeHealth(up=1), **words)


def test_no_label_is_longer_than_the_setting() -> None:
    """Prometheus rejects the whole scrape for one that is: so of a node that answers, and of one that is silent."""
    options = Options(always_export=True, keep_last=True, label_bytes=LIMIT)
    fleet = Fleet(VmText(NAMES, ["name", "node"], LIMIT), NodeText(NAMES, LIMIT), 3_600.0, MigrationText(NAMES, options))
    fleet.take_metrics(long(everything()), 0.0)
    fleet.take_inventory(long(inventory()), 0.0)
    fleet.take_migration(long(migration(1)), 0.0)
    fleet.take_node(long(status(health=health())), 0.0)
    text = text_of(fleet)
    silent = text_of(fleet, 1_000.0)
    assert AGE in text
    assert UP in silent
    found = [(line, label, value) for line in f"{text}{silent}".splitlines() if line[0] != "#" for label, value in LABEL.findall(line)]
    cut = {f"{line.partition('{')[0]}.{label}" for line, label, value in found if "\N{HORIZONTAL ELLIPSIS}" in value}
    assert {"virtflow_node_info.hypervisor_version", "virtflow_node_drops_total.reason", "vm_info.title", "vm_guest_info.hostname"} <= cut
    assert {"vm_network_receive_bytes_total.device", "vm_migration_info.source", "vm_guest_ip_address_info.interface"} <= cut
    assert [one for one in found if len(one[2].encode()) > LIMIT] == []
