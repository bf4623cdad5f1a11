"""The benchmarks' page tells what a reader has to know beside a figure: what could not be had, what was left out, and how steady it was."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from scripts import bench_node
from scripts.bench_node_collectors import FLOOR
from scripts.bench_part import figure, quiet
from scripts.benchmarks import PARTS
from scripts.rivals import refused

SEEN = {"client": 50.0, "daemon": 800.0, "values": 40.0, "resident": 47.0, "private": 20.0, "start": 1.0, "wall": 0.01, "kept_up": 1.0}
WHERE = {"machine": "2 CPUs", "version": "1.0.0", "date": "2026-01-01"}


def found(**changes: float) -> dict[str, Any]:
    """Results of the collectors of one host, two of them, with another's reason."""
    rows = [
        {"vms": 100, "collector": FLOOR, "rounds": [SEEN, SEEN]},
        {"vms": 100, "collector": bench_node.OURS, "rounds": [SEEN, SEEN]},
        {"vms": 100, "collector": "some", "rounds": [SEEN, SEEN | changes]},
    ]
    return {"rows": rows, "failures": {"other": "its registry says no"}, "installed_bytes": {"some": 1}, "not_measured": [500]} | WHERE


@pytest.mark.parametrize("name", PARTS)
def test_every_part_measures_and_shows(name: str) -> None:
    module = import_module(f"scripts.bench_{name}")
    assert callable(module.run)
    assert callable(module.section)


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
