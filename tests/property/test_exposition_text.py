"""Whatever a record holds, its exposition parses, holds exactly its values, and no series is there twice."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.support.strategies import records
from tests.support.vm_samples import WALL, fleet, inventory, sample, text_of, uuid
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import NAMES
from virtflow.schemas.records import NodeStatus, VmInventory, VmMetrics

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
"""Any code points at all, lone surrogates included."""

TEXT = VmText(NAMES)


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each series' value by name and labels; fails when one is there twice."""
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    series = {(one.name, frozenset(one.labels.items())): one.value for one in samples}
    assert len(series) == len(samples) == sum(not line.startswith("#") for line in text.split("\n")[:-1])
    return series


def shown(value: str) -> str:
    """What a reader gets of a label's text: with what has no place in UTF-8 or ends a lexer replaced."""
    return "".join("\ufffd" if character == "\0" or "\ud800" <= character <= "\udfff" else character for character in value)


@given(name=ANY_TEXT, title=ANY_TEXT, node=ANY_TEXT.filter(bool))
def test_any_text_comes_through_a_label(name: str, title: str, node: str) -> None:
    """Quotes, backslashes, newlines, controls, bidi overrides, surrogates: the parser gets back what was meant."""
    vms = fleet()
    vms.take_metrics(sample(name=name, node=node), 0.0)
    vms.take_inventory(inventory(title=title), 0.0)
    text = text_of(vms)
    text.encode()
    (labels,) = [dict(labels) for metric, labels in parsed(text) if metric == "vm_info"]
    assert (labels["name"], labels["title"], labels["node"]) == (shown(name), shown(title), shown(node))


@settings(max_examples=15)
@given(
    vms=st.lists(records(VmMetrics), max_size=2),
    inventories=st.lists(records(VmInventory), max_size=2),
    nodes=st.lists(records(NodeStatus), max_size=2),
)
def test_any_records_make_a_valid_exposition(vms: list[VmMetrics], inventories: list[VmInventory], nodes: list[NodeStatus]) -> None:
    """Values of any size and sign, devices of any names, several of one name."""
    shown_fleet = fleet()
    for record in vms:
        shown_fleet.take_metrics(record, 0.0)
    for about in inventories:
        shown_fleet.take_inventory(about, 0.0)
    for health in nodes:
        shown_fleet.take_node(health, 0.0)
    assert all(value >= 0 for value in parsed(text_of(shown_fleet)).values())


@given(seconds=st.floats(), count=st.integers(-(2**63), 2**63 - 1))
def test_any_number_reads_back_the_same(seconds: float, count: int) -> None:
    """Or has no line, where it is no amount."""
    vms = fleet()
    vms.take_metrics(sample(cpu_seconds_total=seconds, memory_rss_bytes=count), 0.0)
    series = parsed(text_of(vms))
    labels = frozenset({"uuid": uuid(1), "name": "vm-1"}.items())
    assert series.get(("vm_cpu_seconds_total", labels)) == (seconds if 0 <= seconds < math.inf else None)
    assert series.get(("vm_memory_rss_bytes", labels)) == (count if count >= 0 else None)


@settings(max_examples=15)
@given(before=records(VmMetrics), after=records(VmMetrics))
def test_rendering_what_changed_is_rendering_all(before: VmMetrics, after: VmMetrics) -> None:
    """Whatever two samples follow each other."""
    identity = TEXT.identity(after, None)
    again = TEXT.lines(after, identity, before, TEXT.lines(before, identity, None, ()))
    assert again == TEXT.lines(after, identity, None, ())


@given(offset=st.floats(-1e6, 1e6))
def test_an_age_is_never_negative(offset: float) -> None:
    vms = fleet()
    vms.take_metrics(sample(collected=WALL + offset), 0.0)
    series = parsed(text_of(vms))
    (age,) = [value for (name, _), value in series.items() if name == "vm_sample_age_seconds"]
    assert age >= 0
    assert age == pytest.approx(max(0.0, -offset), abs=0.001)
