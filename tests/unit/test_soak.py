"""The soak's plan, its comparisons and what it calls wrong: without a hypervisor."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import islice
from typing import Any

import pytest

from bench.soak import unit_environment
from bench.soak_page import page
from bench.soak_plan import KINDS, REST_SECONDS, plan
from bench.soak_records import compare
from bench.soak_watch import Footprint, Scrapes, over_time, process_problems, slope, twice
from tests.support.lab_scrape import parse

HOUR = 3600.0
SENT = [("vm-1", "n", "boot", number) for number in range(4)]
ROUNDS = [("n", "boot", number) for number in range(4)]


def test_the_same_seed_is_the_same_soak() -> None:
    assert list(islice(plan(7), 50)) == list(islice(plan(7), 50))
    assert list(islice(plan(7), 50)) != list(islice(plan(8), 50))


def test_every_kind_of_fault_comes_once_a_round_within_its_bounds() -> None:
    faults = plan(7)
    for _ in range(5):
        found = list(islice(faults, len(KINDS)))
        assert {one.kind for one in found} == set(KINDS)
        for one in found:
            assert one.kind.least_seconds <= one.seconds <= one.kind.most_seconds
            assert REST_SECONDS[0] <= one.rest_seconds <= REST_SECONDS[1]


def test_what_is_repeated_on_the_topic_is_no_error_and_nothing_is_lost() -> None:
    found = compare(ROUNDS, SENT, Counter([*SENT, SENT[0]]), Counter(SENT))
    assert found.problems == []
    assert (found.rounds, found.rounds_missing, found.samples, found.samples_repeated_on_the_topic, found.rows) == (4, 0, 4, 1, 4)


@pytest.mark.parametrize(
    ("processed", "stored", "problem"),
    [
        (SENT[1:], SENT[1:], "1 samples were acknowledged and not processed"),
        (SENT, SENT[1:], "1 samples were processed and not stored"),
        (SENT, [*SENT, SENT[2], SENT[2]], "2 rows are stored more than once"),
        (SENT, [*SENT, ("other", "n", "boot", 0)], "1 rows are stored that nobody sent"),
    ],
)
def test_what_is_lost_or_twice_is_a_problem(processed: list[Any], stored: list[Any], problem: str) -> None:
    assert compare(ROUNDS, SENT, Counter(processed), Counter(stored)).problems == [problem]


def test_equal_totals_do_not_hide_a_loss() -> None:
    """One row is missing and another one is there twice."""
    found = compare(ROUNDS, SENT, Counter(SENT), Counter([*SENT[1:], SENT[1]]))
    assert (found.rows, found.rows_missing, found.rows_twice) == (4, 1, 1)


def test_rounds_are_missing_within_each_run_of_a_producer() -> None:
    rounds = [("n", "a", 3), ("n", "a", 7), ("n", "b", 0), ("m", "c", 0), ("m", "c", 2)]
    assert compare(rounds, [], {}, {}).rounds_missing == 4


def life(begin: float, level: float, growth: float, seconds: float = HOUR) -> list[Footprint]:
    """A process that grows by so many MiB an hour."""
    return [Footprint(begin + at, level + growth * at / HOUR, 5, 9) for at in range(0, int(seconds) + 1, 60)]


def test_memory_that_grows_is_measured_over_all_lives_of_a_service() -> None:
    """Each life has its own level; its beginning and what was before the moment are left out."""
    begin = [Footprint(0.0, 10.0, 5, 9), Footprint(30.0, 90.0, 5, 9)]
    growth, hours = slope([[*begin, *life(300.0, 100.0, 2.0)], life(5_000.0, 50.0, 2.0)], since=0.0, warm_seconds=300.0)
    assert growth == pytest.approx(2.0)
    assert hours == pytest.approx(1.0 + 55 / 60)
    assert slope([life(0.0, 100.0, 2.0)], since=HOUR) == (0.0, 0.0)


def test_memory_over_time_is_that_of_every_ten_minutes_over_all_lives() -> None:
    assert (
        over_time([*life(0.0, 100.0, 60.0), *life(HOUR + 60.0, 10.0, 0.0)])
        == [100.0, 110.0, 120.0, 130.0, 140.0, 150.0, 160.0] + [10.0] * 6
    )


def test_a_producer_runs_in_the_environment_that_its_unit_gives_it() -> None:
    assert unit_environment("virtflow-producer") == {"MALLOC_ARENA_MAX": "1"}


def process(**changes: object) -> dict[str, dict[str, Any]]:
    calm = {
        "lives": 1,
        "slope_mib_per_hour": 0.2,
        "slope_hours": 2.0,
        "threads": [5, 9, 5],
        "descriptors": [9, 30, 9],
        "health_slowest_seconds": 0.1,
    }
    return {"exporter": calm | changes}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"slope_mib_per_hour": 1.0}, "exporter: memory grows by 1.0 MiB an hour"),
        ({"slope_mib_per_hour": 50.0, "slope_hours": 0.2}, None),
        ({"threads": [5, 12, 11]}, "exporter: 5 threads at the begin, 11 at the end"),
        ({"threads": [5, 12, 11], "lives": 3}, None),
        ({"descriptors": [9, 30, 20]}, "exporter: 9 descriptors at the begin, 20 at the end"),
        ({"health_slowest_seconds": 1.5}, "exporter: health took 1.5 s"),
        ({"health_slowest_seconds": None}, None),
    ],
)
def test_what_a_process_may_not_do(changes: dict[str, object], problem: str | None) -> None:
    """A slope from too short a time judges nothing."""
    assert process_problems(process(**changes)) == ([] if problem is None else [problem])


SCRAPE = """vm_state{uuid="a",name="one"} 1
vm_state{uuid="b",name="two"} 1
vm_info{uuid="a",name="one",node="n"} 1
"""


def test_a_series_under_two_names_and_a_vm_with_two_nodes_are_found() -> None:
    assert twice(parse(SCRAPE, 0.0)) == []
    found = twice(parse(SCRAPE + 'vm_state{uuid="a",name="renamed"} 1\nvm_info{uuid="a",name="one",node="m"} 1\n', 0.0))
    assert len(found) == 2
    assert found[0].startswith("vm_state")
    assert found[1] == "a has 2 nodes"


def test_a_page_without_a_run_says_so() -> None:
    assert "No run is recorded yet" in page(None)


RUN: dict[str, Any] = {
    "command": "scripts/soak --hours 0.1 --vms 20 --seed 7",
    "began": "2026-01-01 00:00 UTC",
    "hours": 0.1,
    "seed": 7,
    "nodes": 2,
    "vms": 20,
    "interval_seconds": 10.0,
    "faults": [{"row": 1, "kind": "libvirtd restarts", "times": 3, "seconds": 4.0, "recovery_worst_seconds": 12.0}],
    "records": asdict(compare(ROUNDS, SENT, Counter(SENT), Counter(SENT))),
    "rounds_dropped": 0.0,
    "scrapes": Scrapes("", 20).seen(),
    "processes": process()
    | {"exporter": process()["exporter"] | {"resident_mib": [80.5, 90.0, 81.0], "resident_mib_over_time": [80.5, 90.0, 81.2]}},
    "problems": [],
    "version": "1",
    "machine": "2 CPUs",
}


def test_a_run_is_shown_with_what_repeats_it() -> None:
    text = page(RUN)
    assert (
        "`scripts/soak --hours 0.1 --vms 20 --seed 7`, begun 2026-01-01 00:00 UTC, 0.10 hours long, seed 7; 20 VMs on 2 nodes, every 10 s."
        in text
    )
    assert "**Passed**" in text
    assert "| 1 | libvirtd restarts | 3 | 4 s | 12 s |" in text
    assert "| stored twice | 0 |" in text
    assert "| exporter | 1 | 80.5, 90, 81 | 0.20 | 2.00 | 5, 9, 5 | 9, 30, 9 | 0.1 s |" in text
    assert "| exporter | 80.5, 90, 81.2 |" in text


def test_a_short_run_says_that_memory_was_not_judged() -> None:
    short = RUN | {"processes": {"exporter": RUN["processes"]["exporter"] | {"slope_hours": 0.1}}}
    assert "too short to judge the growth of memory of exporter." in page(short)
    assert "too short to judge the growth of memory" not in page(RUN)


def test_a_run_that_failed_says_why() -> None:
    assert "**Failed**:\n\n- something was lost" in page(RUN | {"problems": ["something was lost"]})
