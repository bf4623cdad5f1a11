"""A real Prometheus reads the history: years of roll-ups, values equal to the tables, gaps where there is nothing."""

from __future__ import annotations

import math
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment
from tests.support.history import fleet_inventories, fleet_samples
from tests.support.history_years import DAY, HOUR, Hour, hours_of_vm, vm_uuid, write_years
from tests.support.prometheus import Prometheus, check_metrics
from virtflow.history.query.range import Range, series
from virtflow.history.remote_read.protocol.wire import Answer, Asked, Match, Matcher, ReadRequest, write_request
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import INVENTORY_ROWS, SAMPLES
from virtflow.history.writer.dedup import Changes, Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History

NOW = int(time.time()) // DAY * DAY
YEARS = NOW - 3 * 365 * DAY
HOURS_SINCE = NOW - 396 * DAY
"""Older hours are gone, as the default retention has it; their days are there."""
GAP = (NOW - 100 * DAY + 6 * HOUR, NOW - 100 * DAY + 12 * HOUR)
LONG_GAP = (NOW - 800 * DAY, NOW - 780 * DAY)
RAW = NOW - 2 * DAY
RAW_ROUNDS = 120


class Served:
    """The history's server with a Prometheus on it, and what is in the tables."""

    def __init__(self, prometheus: Prometheus, url: str, vms: dict[int, list[Hour]], path: Path) -> None:
        """As the fixture made them."""
        self.prometheus, self.url, self.vms, self.path = prometheus, url, vms, path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("years")
    first = [hour for hour in hours_of_vm(1, YEARS, NOW - 3 * DAY, gap=GAP) if not LONG_GAP[0] <= hour.start < LONG_GAP[1]]
    vms = {1: first, 2: hours_of_vm(2, YEARS + 45 * DAY, NOW - 3 * DAY)}
    store = write_years(folder / "history", vms, hours_since=HOURS_SINCE)
    writer = TableWriter(store.open(SAMPLES), Sequences())
    writer.begin(["raw"])
    for offset, sample in enumerate(fleet_samples(1, 4, range(RAW_ROUNDS), start=float(RAW))):
        writer.take("raw", offset, sample)
    writer.commit()
    writer = TableWriter(store.make(INVENTORY_ROWS), Changes())
    writer.begin(["inventory"])
    for offset, inventory in enumerate(fleet_inventories(1, 4, start=float(RAW))):
        writer.take("inventory", offset, inventory)
    writer.commit()
    (port,) = free_ports(1)
    command = [*DIES_WITH_US, str(PROGRAM), "history", "serve", "--history", str(folder / "history"), "--listen", f"127.0.0.1:{port}"]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/api/v1/read"
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", folder / "serve.log")
        with Prometheus(folder / "prometheus", {}, remote_read=url) as prometheus:
            yield Served(prometheus, url, vms, folder / "history")
    finally:
        process.terminate()
        assert process.wait(10) == 0


def wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310, our own
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def test_a_gauge_over_days_is_the_table_s_hour(served: Served) -> None:
    """At each full hour the value is the average of the hour that ends there; a missing hour is a gap, not a line and not zero."""
    start, end = NOW - 100 * DAY, NOW - 99 * DAY
    ((labels, points),) = served.prometheus.query_range('vm_memory_rss_bytes{name="vm-1"}', start + HOUR, end, HOUR)
    assert labels == {"__name__": "vm_memory_rss_bytes", "name": "vm-1", "uuid": vm_uuid(1)}
    expected = {hour.start + HOUR: hour.resident_bytes for hour in served.vms[1] if start <= hour.start < end}
    assert len(expected) == 18
    assert dict(points) == pytest.approx(expected)


def test_years_at_a_daily_step_are_the_daily_rows(served: Served) -> None:
    points = dict(served.prometheus.query_range(f'vm_memory_rss_bytes{{uuid="{vm_uuid(2)}"}}', YEARS + DAY, NOW - 4 * DAY, DAY)[0][1])
    days: dict[int, list[float]] = {}
    for hour in served.vms[2]:
        days.setdefault(hour.start // DAY * DAY + DAY, []).append(hour.resident_bytes)
    expected = {day: math.fsum(values) / len(values) for day, values in days.items() if day <= NOW - 4 * DAY}
    assert points == pytest.approx(expected)


def test_three_years_of_growth_are_the_days_growth(served: Served) -> None:
    """Week by week from the daily rows; where there are none for longer than the window there is no value, and never a zero or a line."""
    start = YEARS + 14 * DAY
    asked = f'increase(vm_cpu_seconds_total{{uuid="{vm_uuid(1)}"}}[7d])'
    points = dict(served.prometheus.query_range(asked, start, NOW - 7 * DAY, 7 * DAY)[0][1])
    silent = 0
    for at in range(start, NOW - 7 * DAY, 7 * DAY):
        hours = [hour for hour in served.vms[1] if at - 7 * DAY <= hour.start < at]
        if len(hours) == 7 * 24:
            assert points[at] == pytest.approx(math.fsum(hour.cpu_seconds for hour in hours), rel=0.01)
        elif not hours:
            silent += 1
            assert at not in points
    assert silent
    assert len(points) > 140


def test_a_gap_of_days_years_ago_is_a_gap(served: Served) -> None:
    """A gauge ends with its last row, also for an expression that looks back, and begins again with the next."""
    asked = f'vm_memory_rss_bytes{{uuid="{vm_uuid(1)}"}}'
    begin, end = LONG_GAP[0] - 3 * DAY, LONG_GAP[1] + 3 * DAY
    at = {int(moment) for moment, _ in served.prometheus.query_range(asked, begin, end, DAY)[0][1]}
    assert at == {day for day in range(begin, end + DAY, DAY) if not LONG_GAP[0] < day <= LONG_GAP[1]}
    assert not served.prometheus.query(asked, LONG_GAP[0] + 60)
    assert served.prometheus.query(asked, LONG_GAP[0])
    assert served.prometheus.query(asked, LONG_GAP[1] + 60)


def test_promtool_asks_without_a_complaint(served: Served) -> None:
    """Ranges, series and labels over all three years, and the server's own page."""
    url, edges = served.prometheus.url, (f"--start={YEARS}", f"--end={NOW}")
    asked = [
        ["query", "range", *edges, "--step=86400s", url, "sum(rate(vm_cpu_seconds_total[2d]))"],
        ["query", "series", *edges, "--match=vm_memory_rss_bytes", url],
        ["query", "instant", f"--time={NOW - 700 * DAY}", url, "count(vm_state)"],
    ]
    for words in asked:
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), words
        assert not done.stderr, words
    own = served.url.replace("/api/v1/read", "/metrics")
    with urllib.request.urlopen(own, timeout=10) as reply:  # noqa: S310, our own
        check_metrics(reply.read())


def test_growth_over_a_day_is_the_sum_of_its_hours(served: Served) -> None:
    """PromQL's increase over roll-ups is what the table says, within the extrapolation to the window's edges."""
    start, end = NOW - 90 * DAY, NOW - 60 * DAY
    points = dict(served.prometheus.query_range('increase(vm_cpu_seconds_total{name="vm-2"}[1d])', start + DAY, end, DAY)[0][1])
    assert len(points) == 30
    for at, value in points.items():
        grown = math.fsum(hour.cpu_seconds for hour in served.vms[2] if at - DAY <= hour.start < at)
        assert value == pytest.approx(grown, rel=0.005)


def test_a_short_rate_works_on_hourly_rows(served: Served) -> None:
    """``rate(...[5m])``, as dashboards have it, has a value at every step within an hour, years back."""
    start = NOW - 130 * DAY
    points = served.prometheus.query_range('rate(vm_cpu_seconds_total{name="vm-2"}[5m])', start, start + 6 * HOUR, 900)[0][1]
    assert len(points) == 25
    hours = {hour.start: hour.cpu_seconds / HOUR for hour in served.vms[2]}
    for at, value in points:
        if at % HOUR:
            assert value == pytest.approx(hours[int(at) // HOUR * HOUR], rel=0.01)


def test_the_extremes_of_a_window_are_the_rows_extremes(served: Served) -> None:
    at = NOW - 50 * DAY
    hours = [hour for hour in served.vms[1] if at - DAY <= hour.start < at]
    (highest,) = served.prometheus.query('max_over_time(vm_memory_rss_bytes{name="vm-1"}[1d])', at)
    (lowest,) = served.prometheus.query('min_over_time(vm_memory_rss_bytes{name="vm-1"}[1d])', at)
    assert highest.value == max(int(hour.resident_bytes * 1.1) for hour in hours)
    assert lowest.value == min(int(hour.resident_bytes * 0.9) for hour in hours)


def test_samples_are_the_samples_and_end_where_the_vm_did(served: Served) -> None:
    """The raw tier returns every sample at its time; three intervals after the last one the series is gone."""
    samples = list(fleet_samples(1, 4, range(RAW_ROUNDS), start=float(RAW)))
    vm = samples[0].uuid
    expected = {sample.collected: sample.memory_rss_bytes for sample in samples if sample.uuid == vm and sample.memory_rss_bytes >= 0}
    last = max(expected)
    stored = served.prometheus.points(f'vm_memory_rss_bytes{{uuid="{vm}"}}', 3_600, last + 1)
    assert dict(stored[0][1]) == expected
    assert served.prometheus.query(f'vm_memory_rss_bytes{{uuid="{vm}"}}', last + 29)
    assert not served.prometheus.query(f'vm_memory_rss_bytes{{uuid="{vm}"}}', last + 31)


def test_promql_and_the_history_agree_on_growth(served: Served) -> None:
    """Over the same raw samples, restarts included: PromQL's increase is the history's, but for its extrapolation to the window's edges."""
    samples = list(fleet_samples(1, 4, range(RAW_ROUNDS), start=float(RAW)))
    settings = History(path=str(served.path))
    end = RAW + (RAW_ROUNDS - 1) * 10
    compared = 0
    for vm in {sample.uuid for sample in samples}:
        points = [(s.collected, s.cpu_seconds_total) for s in samples if s.uuid == vm and s.cpu_seconds_total >= 0]
        if len(points) < RAW_ROUNDS:
            continue
        truth = math.fsum(b - a if b >= a else b for (_, a), (_, b) in pairwise(points))
        asked = Range("vm_cpu_seconds_total", (vm,), RAW, end + 10, 60)
        assert math.fsum(series(Store(settings), settings, asked).points.column("increase").to_pylist()) == pytest.approx(truth)
        window = end - RAW
        found = served.prometheus.value(f'increase(vm_cpu_seconds_total{{uuid="{vm}"}}[{window}s] @ {end})')
        assert found == pytest.approx(truth, rel=2 * 10 / window)
        compared += 1
    assert compared


def test_devices_have_their_label_and_states_their_words(served: Served) -> None:
    at = RAW + 60
    assert {sample.labels["device"] for sample in served.prometheus.query("vm_block_read_bytes_total", at)} >= {"vda"}
    assert {sample.labels["vcpu"] for sample in served.prometheus.query("vm_vcpu_seconds_total", at)} >= {"0"}
    assert "running" in {sample.labels["state"] for sample in served.prometheus.query("vm_state_info", at)}
    assert served.prometheus.query("count(vm_info)", at)[0].value == served.prometheus.query("count(vm_state)", at)[0].value
    assert served.prometheus.query("vm_info", at)[0].labels["project"].startswith("project-")


def test_a_query_beyond_the_limits_says_which(served: Served) -> None:
    """Prometheus passes the reason on as a warning."""
    asked = ReadRequest((Asked((NOW - 5_000 * DAY) * 1000, NOW * 1000, (Matcher(Match.EQUAL, "__name__", "vm_state"),)),))
    code, text = refused(served.url, write_request(asked))
    assert code == 400
    assert "history.serve_days" in text


def refused(url: str, body: bytes) -> tuple[int, str]:
    request = urllib.request.Request(url, body, method="POST")  # noqa: S310, our own
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(request, timeout=10)  # noqa: S310, our own
    return found.value.code, found.value.read().decode()


def test_both_kinds_of_answer_hold_the_same(served: Served) -> None:
    """An old client that takes samples only gets them."""
    matcher = (Matcher(Match.EQUAL, "__name__", "vm_state"),)
    asked = ReadRequest((Asked(RAW * 1000, (RAW + 3600) * 1000, matcher),), (Answer.SAMPLES,))
    request = urllib.request.Request(served.url, write_request(asked), {"Content-Encoding": "snappy"})  # noqa: S310, our own
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310, our own
        assert reply.headers["Content-Type"] == "application/x-protobuf"
        assert reply.headers["Content-Encoding"] == "snappy"
        assert reply.read()


@pytest.mark.parametrize("body", [b"", b"\xff" * 40, b"\x05hello", b"\xff\xff\xff\xff\x0f"], ids=["empty", "endless", "no request", "huge"])
def test_a_body_that_is_no_request_is_refused(served: Served, body: bytes) -> None:
    code, text = refused(served.url, body)
    assert code == 400
    assert "\n" not in text.strip()
