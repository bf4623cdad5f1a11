"""The benchmarks run, and their page says what their results say; the numbers themselves are for scripts/bench to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import benchmarks, scale
from bench.centre_processes import Load
from bench.hops import Data, rivals
from bench.pipeline import measure


def test_the_page_is_generated_from_the_results() -> None:
    results = json.loads(benchmarks.RESULTS.read_text())
    assert benchmarks.PAGE.read_text() == benchmarks.page(results)
    assert benchmarks.SCALE.read_text() == scale.page(results)


def test_the_usual_ways_cost_more() -> None:
    """The choices that the design rests on hold on this machine: rendering once, batches, and a fast Avro."""
    ours = dict.fromkeys(("encode snapshot", "decode snapshot", "exporter: ingest and render", "exporter: scrape"), 50.0)
    ratios = {rival.name: rival.microseconds / rival.ours for rival in rivals(Data(), ours)}
    assert ratios["prometheus_client.generate_latest"] > 3
    assert ratios["Apache avro"] > 2


@pytest.mark.parametrize("load", [Load(nodes=2, vms=20, interval_seconds=1.0, seconds=5.0, scrape_seconds=1.0)])
def test_the_pipelines_measurement_sees_fresh_samples(load: Load, tmp_path: Path) -> None:
    seen = measure(load, tmp_path, warm_seconds=1.0)
    assert seen["lag_seconds"]["median"] < 5.0
    assert seen["scrape"]["series"] > 30 * seen["vms"]
