"""Simulated worlds keep the invariants, and a list of faults is shortened to those that matter."""

from __future__ import annotations

from typing import Final

import pytest

from tests.simulation.faults import KINDS, Fault, plan
from tests.simulation.minimise import minimised
from tests.simulation.run import report, run_seed
from tests.support.long import length
from virtflow.processors.lineage.marks import Lineage

SEEDS: Final = length(200, 2_000)
PARTS: Final = 4
"""Tests that share the seeds: a failure names its own."""
FOUND: Final[dict[str, tuple[int, list[Fault]]]] = {
    "a producer that outlives a second one of its node is not heard any more": (7, [Fault("twin", 20.0, "producer-node-0", 2.5)]),
    "a migration is older than the one before it, whose record the broker has deleted": (
        118,
        [Fault("retention", 54.093, "vm.migrations/1", amount=7)],
    ),
    "a message that waited while partitions were revoked is handled before those that come again": (
        492,
        [
            Fault("crash", 32.862, "producer-node-1", amount=90),
            Fault("crash", 35.717, "exporter-0", amount=20),
            Fault("crash", 36.648, "processors-1", amount=64),
            Fault("refusal", 48.213, "vm.metrics", amount=5),
            Fault("power cut", 50.541, "producer-node-0"),
            Fault("retention", 51.876, "vm.events/1", amount=9),
        ],
    ),
    "a migration runs on in the topic, behind the record of its end": (402, [Fault("refusal", 45.872, "vm.migrations", amount=2)]),
    "a migration runs on in the topic, which has lost the record of its end": (
        1310,
        [Fault("election", 57.494, "vm.migrations/0", amount=3)],
    ),
    "a migration is older than the one before it, whose newest records the broker has lost": (
        1989,
        [Fault("lost end", 55.902, "vm.migrations/0", amount=9)],
    ),
    "a migration is not stored after a host's clock was set back": (31, [Fault("clock jump", 48.988, "producer-node-0", amount=-200)]),
}
"""What was wrong with the code, and the world that showed it: a seed, and the faults that were left of it."""

TWINS: Final[dict[int, list[Fault]]] = {
    276: [
        Fault("rebalance", 37.865, "processors-0"),
        Fault("twin", 39.767, "producer-node-0", 14.697),
        Fault("broker down", 46.777, seconds=7.62),
    ],
    441: [Fault("twin", 23.196, "producer-node-0", 8.597), Fault("election", 26.053, "vm.nodes/0", amount=8)],
    563: [Fault("twin", 37.989, "producer-node-0", 10.099), Fault("retention", 45.191, "vm.migrations/0", amount=3)],
    984: [Fault("crash", 19.904, "processors-0", amount=13), Fault("twin", 23.888, "producer-node-0", 6.491)],
}
"""Two producers of a node run at once, and the processors begin anew meanwhile: nothing is wrong, whichever of the two they hear from then on."""


@pytest.mark.parametrize("part", range(PARTS))
def test_the_invariants_hold(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        outcome = run_seed(seed)
        assert not outcome.problems, report(outcome)


@pytest.mark.parametrize("what", FOUND)
def test_a_fault_that_was_found_does_not_come_back(what: str) -> None:
    seed, faults = FOUND[what]
    outcome = run_seed(seed, faults)
    assert not outcome.problems, f"{what}: {report(outcome)}"


@pytest.mark.parametrize("seed", TWINS)
def test_either_of_two_producers_of_a_node_may_be_heard(seed: int) -> None:
    outcome = run_seed(seed, TWINS[seed])
    assert not outcome.problems, report(outcome)


LOST_END: Final = [Fault("lost end", 47.172, "vm.events/1", amount=9)]
"""In the world of seed 384 nothing more comes to that partition afterwards."""


def test_a_reader_that_has_gone_back_to_a_lost_end_is_not_behind_it() -> None:
    """What is committed stays beyond the end until something comes there, with marks by which the next reader goes back as well."""
    outcome = run_seed(384, LOST_END)
    assert not outcome.problems, report(outcome)


def test_a_reader_that_stays_beyond_a_lost_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lineage, "_begin", lambda *asked: (asked[3], False))
    assert any("behind its end 0" in problem for problem in run_seed(384, LOST_END).problems)


def test_every_kind_of_fault_is_planned() -> None:
    names = ("producer-node-0", "processors-0", "exporter-0", "history-0")
    assert {fault.kind for seed in range(200) for fault in plan(seed, names)} == set(KINDS)


def test_only_the_faults_that_matter_are_left() -> None:
    faults = [Fault("crash", float(number)) for number in range(10)]
    fewer = minimised(faults, lambda some: faults[3] in some and faults[7] in some)
    assert fewer == [faults[3], faults[7]]


def test_what_breaks_without_a_fault_needs_none() -> None:
    assert minimised([Fault("crash", 1.0)], lambda some: some is not None) == []
