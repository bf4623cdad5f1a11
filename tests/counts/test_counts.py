"""No hop of the data gets dearer unseen: what it does is counted and compared with a committed baseline."""

from __future__ import annotations

import copy
import json

import pytest

from bench import counts


@pytest.fixture(scope="module")
def now() -> counts.Counts:
    return counts.measure()


def test_no_hop_has_become_dearer(now: counts.Counts) -> None:
    wrong = counts.dearer(now, json.loads(counts.BASELINE.read_text()))
    assert not wrong, "\n".join([*wrong, f"if that is meant: {counts.COMMAND}"])


def test_the_guard_names_the_hop_and_the_count(now: counts.Counts) -> None:
    """It is not blind: a hop that calls a tenth more, one that is gone, and one that nobody knows are each told."""
    before = {"python": counts.version(), "hops": copy.deepcopy(now)}
    assert counts.dearer(now, before) == []
    dear = copy.deepcopy(now)
    dear["processors: normalise"]["calls per VM-sample"] *= 1.1
    del dear["exporter: scrape"]
    dear["exporter: new"] = {"calls per VM-sample": 1.0}
    told = counts.dearer(dear, before)
    assert [line.partition(":  ")[0].split(": ")[:2] for line in told] == [
        ["exporter", "scrape"],
        ["processors", "normalise"],
        ["exporter", "new"],
    ]
    assert "calls per VM-sample went from" in told[1]


def test_calls_are_counted_one_by_one() -> None:
    def twice() -> None:
        len([])
        len([])

    assert counts.calls(twice) == 3
