"""Lines are rendered when somebody looks: what is replaced before costs nothing, and what is shown is the same."""

from __future__ import annotations

import pytest

from tests.support.vm_samples import fleet, inventory, sample, text_of
from virtflow.exporter import fleet as fleet_module
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import NAMES
from virtflow.schemas.records import VmMetrics

VMS, ROUNDS = 7, 4


class CountingText(VmText):
    """Renders as ever and counts how often."""

    rendered = 0

    def lines(self, record: VmMetrics, identity: str, before: VmMetrics | None, rendered: tuple[str, ...]) -> tuple[str, ...]:
        """Counts, and renders."""
        self.rendered += 1
        return super().lines(record, identity, before, rendered)


def counting_fleet() -> tuple[Fleet, CountingText]:
    text = CountingText(NAMES)
    return Fleet(text, NodeText(NAMES), 3_600.0), text


def feed(vms: Fleet) -> None:
    """Some rounds of all VMs; one gets its inventory in between, one is on two nodes."""
    for sequence in range(ROUNDS):
        for number in range(VMS):
            vms.take_metrics(sample(number, sequence), 0.0)
        vms.take_inventory(inventory(1, sequence), 0.0)
        vms.take_metrics(sample(3, sequence, node="node-2", state=5), 0.0)


def test_a_sample_that_is_replaced_before_a_scrape_is_not_rendered() -> None:
    """One rendering per VM and scrape, however many samples came in between; none where nothing came."""
    vms, text = counting_fleet()
    feed(vms)
    assert text.rendered == 0
    first = text_of(vms)
    assert text.rendered == VMS
    assert text_of(vms) == first
    assert text.rendered == VMS


def test_beyond_a_number_samples_are_rendered_as_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many wait for the scrape, the others' every sample is rendered; the text is that of a fleet that lets all of them wait."""
    late = fleet()
    feed(late)
    monkeypatch.setattr(fleet_module, "UNRENDERED", 2)
    vms, text = counting_fleet()
    for sequence in range(ROUNDS):
        for number in range(VMS):
            vms.take_metrics(sample(number, sequence), 0.0)
    assert text.rendered == (VMS - 2) * ROUNDS
    bounded = fleet()
    feed(bounded)
    assert text_of(bounded) == text_of(late)


def test_samples_that_come_between_two_steps_are_shown_too() -> None:
    """A step renders what waits; whatever arrives before the text is taken is in it, also when the steps are given up half way."""
    vms, eager = fleet(), fleet()
    feed(vms)
    steps = vms.rendering()
    next(steps)
    del steps
    for each in (vms, eager):
        if each is eager:
            feed(eager)
            text_of(eager)
        each.take_metrics(sample(2, ROUNDS), 0.0)
    assert text_of(vms) == text_of(eager)
