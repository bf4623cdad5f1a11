"""The benchmarks' page tells what a reader has to know beside a figure: what could not be had, what was left out, and how steady it was."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench import benchmarks, scale
from bench import node as bench_node
from bench.benchmarks import PARTS
from bench.node_collectors import FLOOR
from bench.part import Asked, figure, quiet
from bench.rivals import refused

SEEN = {"client": 50.0, "daemon": 800.0, "values": 40.0, "resident": 47.0, "private": 20.0, "start": 1.0, "wall": 0.01, "kept_up": 1.0}
HOW = {"vms": 100, "samples": 6, "interval_seconds": 5.0}
WHERE = {"machine": "2 CPUs", "version": "1.0.0", "date": "2026-01-01"}


def found(**changes: float) -> dict[str, Any]:
    """Results of the collectors of one host, two of them, with another's reason."""
    rows = [
        HOW | {"collector": FLOOR, "rounds": [SEEN, SEEN]},
        HOW | {"collector": bench_node.OURS, "rounds": [SEEN, SEEN]},
        HOW | {"collector": "some", "rounds": [SEEN, SEEN | changes]},
    ]
    return {"rows": rows, "failures": {"other": "its registry says no"}, "installed_bytes": {"some": 1}, "not_measured": [500]} | WHERE


@pytest.mark.parametrize("name", PARTS)
def test_every_part_measures_and_shows(name: str) -> None:
    module = import_module(f"bench.{name}")
    assert callable(module.run)
    assert callable(module.section)


class Part(ModuleType):
    """A part that tells how often it was measured, or fails."""

    fails = False
    times = 0

    def run(self, _asked: Asked) -> dict[str, Any]:
        self.times += 1
        if self.fails:
            raise OSError("no such rival")
        return {"times": self.times}

    @staticmethod
    def section(found: dict[str, Any]) -> list[str]:
        return [f"measured {found['times']} times"]


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Part]:
    """Two parts in place of all, the results and the pages in a folder of their own."""
    made = {name: Part(name) for name in ("first", "second")}
    for name, part in made.items():
        monkeypatch.setitem(sys.modules, f"bench.{name}", part)
    monkeypatch.setattr(benchmarks, "PARTS", dict.fromkeys(made, "something"))
    monkeypatch.setattr(scale, "page", lambda _results: "")
    for name in ("RESULTS", "PAGE", "SCALE"):
        monkeypatch.setattr(benchmarks, name, tmp_path / name)
    return made


@pytest.mark.usefixtures("parts")
def test_a_page_says_that_it_comes_from_one_run_and_what_was_measured_again() -> None:
    assert benchmarks.main([]) == 0
    assert "in one run of `scripts/bench`, begun 20" in benchmarks.PAGE.read_text()
    assert "again" not in benchmarks.PAGE.read_text()
    assert benchmarks.main(["second"]) == 0
    assert benchmarks.main(["second", "first"]) == 0
    assert " minutes long; measured again since then, alone: first, second." in benchmarks.PAGE.read_text()
    assert "measured 3 times" in benchmarks.PAGE.read_text()
    assert benchmarks.main([]) == 0
    assert "again" not in benchmarks.PAGE.read_text()


def test_a_part_that_fails_costs_no_other_and_is_told(parts: dict[str, Part], capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main([]) == 0
    parts["first"].fails = True
    assert benchmarks.main([]) == 1
    page = benchmarks.PAGE.read_text()
    assert "measured 1 times" in page  # as it was before
    assert "measured 2 times" in page
    assert "one run" not in page
    told = capsys.readouterr().err
    assert "no such rival" in told
    assert told.splitlines()[-1] == "bench: not measured, see above, and left as they were: first"


def test_how_often_a_collector_was_looked_at_comes_from_the_results() -> None:
    assert "(by the number of VMs, 2 x 6 at 5 s for 100)" in "\n".join(bench_node.section(found()))


def test_a_rival_that_is_not_to_be_had_stands_there_with_its_reason() -> None:
    page = "\n".join(bench_node.section(found()))
    assert "| other | its registry says no |" in page
    assert "Not measured on this machine: 500 VMs." in page


def test_samples_that_were_left_out_are_told() -> None:
    assert "some (took 50% of the samples that were due)" in "\n".join(bench_node.section(found(kept_up=0.5)))


def test_goals_are_called_reached_or_missed() -> None:
    """Equal memory is reached, equal CPU is not less; three times as much for the rival turns that."""
    page = "\n".join(bench_node.section(found()))
    assert "1.25 µs of client CPU per value against 1.25 of some: **missed**" in page
    assert "47 MiB against 47 of some: reached" in page
    assert "against 2.50 of some: reached" in "\n".join(bench_node.section(found(client=150.0)))


def test_a_figure_from_a_noisy_machine_is_marked() -> None:
    """From a spread of a tenth on; a steady one stands alone."""
    assert figure([100.0, 104.0, 108.0]) == "104"
    assert figure([100.0, 150.0, 200.0]) == "150 ± 33%"
    assert "± 33%" in "\n".join(bench_node.section(found(client=100.0)))


def test_measurements_take_turns_by_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTFLOW_BENCH_LOCK", str(tmp_path / "lock"))
    with quiet():
        assert (tmp_path / "lock").exists()


def test_a_module_that_the_proxy_refuses_is_told_without_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    reasons = refused()
    assert reasons
    assert all(reason and "http" not in reason for reason in reasons.values())


def test_the_pages_are_those_of_the_results() -> None:
    """A page that was written by hand, or not written again after a result was taken back, is found."""
    results = json.loads(benchmarks.RESULTS.read_text())
    assert benchmarks.PAGE.read_text() == benchmarks.page(results)
    assert benchmarks.SCALE.read_text() == scale.page(results)
