"""Debian's Prometheus and a current one, each with the same raw samples in its own storage and through remote_read: the same answers."""

from __future__ import annotations

import json
import math
import random
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from msgspec import Struct
from msgspec.structs import replace

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment
from tests.support.guest_samples import told
from tests.support.history import fleet_samples
from tests.support.own_storage import scraped, write
from tests.support.prometheus import Prometheus
from tests.support.prometheus_build import current_prometheus
from virtflow.history.remote_read.reading.labels import INFO, NAMES
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.records import GuestFilesystemMetrics, GuestMetrics, VmMetrics
from virtflow.schemas.states import STATES

ROUNDS = 120
INTERVAL = 10.0
END = float(int(time.time()) - 60)
START = END - ROUNDS * INTERVAL
QUERIES = 150
PAUSED = 3
R = TypeVar("R", bound=Struct)
WANTED = tuple(name for name in NAMES if name != INFO)
NOT_SIMULATED = ("vm_cpu_haltpoll_", "vm_block_threshold_bytes")
"""What the fleet's VMs never have."""


def lived(samples: list[VmMetrics]) -> list[VmMetrics]:
    """The fleet's samples as rough as reality: microseconds, a pause, a rename and back, devices unplugged for a while, a gap, guests' words."""
    uuids = sorted({sample.uuid for sample in samples})
    numbered = [(uuids.index(sample.uuid), sample) for sample in samples]
    return [roughened(vm, sample) for vm, sample in numbered if not (vm == 3 and 70 <= sample.sequence < 90)]


def roughened(vm: int, sample: VmMetrics) -> VmMetrics:
    at = sample.sequence
    changes: dict[str, Any] = {"collected": sample.collected + 0.000123 * (1 + vm)}
    if vm == 0 and 30 <= at < 60:
        changes["name"] = f"{sample.name}-renamed"
    if vm == 1 and (40 <= at < 50 or 70 <= at < 72):
        changes |= {"state": PAUSED, "state_reason": 1}
    if vm == 2 and 20 <= at < 40:
        changes["blocks"] = [disk for disk in sample.blocks if disk.device != "vdb"]
    if vm == 2 and (50 <= at < 60 or at >= 110):
        changes["networks"] = []
    if vm == 5 or (vm == 4 and at % 40 < 30):
        changes["guest"] = [guest_of(at)]
    if vm == 4 and 33 <= at < 37:
        changes |= {"memory_rss_bytes": -1, "guest_memory_usable_bytes": -1}
    return to_microseconds(replace(sample, **changes))


def guest_of(at: int) -> GuestMetrics:
    """What a guest's agent tells: a load that is not always known, a filesystem that fills, one that is unmounted for a while."""
    filesystems = [GuestFilesystemMetrics(mountpoint="/", fstype="ext4", device="vda1", size_bytes=2**33, free_bytes=2**33 - at * 2**20)]
    if not 45 <= at < 46 and at < 90:
        filesystems.append(GuestFilesystemMetrics(mountpoint="/srv/d\u00e4ta, 1", fstype="xfs", size_bytes=2**40, free_bytes=at))
    return told(filesystems=filesystems, load1=math.nan if 20 <= at < 22 else at / 100, cpus=2 + at % 2)


def to_microseconds(record: R) -> R:
    """Seconds as the tables keep them, to the microsecond: that is no difference of remote_read."""
    rounded: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, list):
            rounded[name] = [to_microseconds(each) for each in value]
        elif isinstance(value, float) and "seconds" in name and not math.isnan(value):
            rounded[name] = round(value, 6)
    return replace(record, **rounded)


class Pair(NamedTuple):
    """One version twice: with the samples in its own storage, and reading them from the history."""

    own: Prometheus
    reading: Prometheus


@pytest.fixture(scope="module")
def samples() -> list[VmMetrics]:
    assert STATES[PAUSED] == "paused"
    return lived(list(fleet_samples(1, 6, range(ROUNDS), interval=INTERVAL, start=START)))


@pytest.fixture(scope="module")
def served(samples: list[VmMetrics], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The history's remote_read on the samples."""
    folder = tmp_path_factory.mktemp("served")
    writer = TableWriter(Store(History(path=str(folder / "history"))).make(SAMPLES), Sequences())
    writer.begin(["raw"])
    for offset, sample in enumerate(samples):
        writer.take("raw", offset, sample)
    writer.commit()
    (port,) = free_ports(1)
    command = [*DIES_WITH_US, str(PROGRAM), "history", "serve", "--history", str(folder / "history"), "--listen", f"127.0.0.1:{port}"]
    with (folder / "serve.log").open("wb") as log, subprocess.Popen(command, env=environment(), stdout=log, stderr=log) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/readyz")
            yield f"http://127.0.0.1:{port}/api/v1/read"
        finally:
            process.terminate()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310, our own
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module", params=["debian", "current"])
def pair(request: pytest.FixtureRequest, samples: list[VmMetrics], served: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    program = "prometheus" if request.param == "debian" else str(current_prometheus())
    folder = tmp_path_factory.mktemp(request.param)
    own = Prometheus(folder / "own", {}, program=program)
    own.more = ["--web.enable-remote-write-receiver"]
    reading = Prometheus(folder / "reading", {}, program=program, remote_read=served)
    own.rules = reading.rules = False  # there is nothing to alert of, and all rules' queries go through remote_read as well
    with ExitStack() as stack:
        stack.enter_context(own)
        stack.enter_context(reading)
        write(own.url, scraped(samples, WANTED))
        yield Pair(own, reading)


def random_query(rng: random.Random) -> str:
    """An expression as dashboards and rules have them."""
    counter = rng.choice([name for name in WANTED if name.endswith("_total")])
    gauge = rng.choice([name for name in WANTED if not name.endswith("_total")])
    window = rng.choice(["31s", "1m", "2m", "5m", "10m", "19m"])
    vm = rng.choice(["", "", '{name=~".*-1"}', '{name!~"queue.*"}', '{uuid=~"[0-7].*"}', '{device="vda"}', '{state="running"}'])
    offset = rng.choice(["", "", "", " offset 3m"])
    on_counter = rng.choice(["rate", "irate", "increase", "resets", "changes", "delta", "idelta", "count_over_time", "last_over_time"])
    on_gauge = rng.choice(
        ["avg_over_time", "max_over_time", "min_over_time", "sum_over_time", "count_over_time", "stddev_over_time", "deriv", "changes"]
    )
    by = rng.choice(["sum by (name)", "avg by (uuid)", "max", "count", "min by (name)", "quantile(0.9, ", "sum without (device)", ""])
    inner = rng.choice(
        [
            f"{on_counter}({counter}{vm}[{window}]{offset})",
            f"{on_gauge}({gauge}{vm}[{window}]{offset})",
            f"{gauge}{vm}{offset}",
            f"{counter}{vm}{offset}",
            f"max_over_time(rate({counter}{vm}[1m])[{window}:30s])",
            f"{counter}{vm} / on (uuid) group_left () vm_state",
            f"absent({gauge}{vm})",
        ]
    )
    return f"{by}{inner})" if by.endswith(", ") else f"{by}({inner})" if by else inner


def asked(prometheus: Prometheus, path: str, parameters: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    url = f"{prometheus.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=60) as reply:  # noqa: S310, our own
        answer = json.load(reply)
    return answer["data"], [text for text in answer.get("warnings", []) if "remote" in text]


def plain(data: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Series by their labels; a label set that is there twice would be an error of Prometheus' own."""
    found = {}
    for element in data["result"]:
        points = element["values"] if "values" in element else [element["value"]]
        found[json.dumps(element["metric"], sort_keys=True)] = [(float(at), float(value)) for at, value in points]
    return found


def differing(own: dict[str, list[tuple[float, float]]], read: dict[str, list[tuple[float, float]]]) -> str:
    if own.keys() != read.keys():
        return f"series: only own {sorted(own.keys() - read.keys())[:3]}, only read {sorted(read.keys() - own.keys())[:3]}"
    for labels, points in own.items():
        other = read[labels]
        if [at for at, _ in points] != [at for at, _ in other]:
            return f"times of {labels}: {len(points)} and {len(other)}"
        for (at, mine), (_, theirs) in zip(points, other, strict=True):
            same = math.isnan(mine) and math.isnan(theirs)
            if not same and not math.isclose(mine, theirs, rel_tol=1e-9, abs_tol=1e-12):
                return f"{labels} at {at}: {mine} and {theirs}"
    return ""


def test_150_random_queries_have_the_answers_of_prometheus_own_storage(pair: Pair) -> None:
    rng, wrong, seen = random.Random(4), [], 0  # noqa: S311, the same queries every time
    for _ in range(QUERIES):
        query = random_query(rng)
        if rng.random() < 0.3:
            path, when = "query", {"time": f"{START + rng.random() * ROUNDS * INTERVAL:.3f}"}
        else:
            start = START + rng.random() * 600
            path, when = "query_range", {"start": f"{start:.3f}", "end": f"{start + 900:.3f}", "step": str(rng.choice([7, 15, 60, 300]))}
        (own, _), (read, warnings) = (asked(each, path, {"query": query, **when}) for each in pair)
        seen += bool(own["result"])
        if difference := "; ".join(warnings) or differing(plain(own), plain(read)):
            wrong.append(f"{query} {when}: {difference}")
    assert not wrong, f"{len(wrong)} of {QUERIES}:\n" + "\n".join(wrong[:8])
    assert seen > QUERIES // 2


def test_every_sample_is_there_once_with_every_label_set_once(pair: Pair) -> None:
    """All VMs' series, not the first of each frame; the marks of series that ended are not shown but end them."""
    empty = set()
    for name in WANTED:
        points = [plain(asked(each, "query", {"query": f"{name}[{ROUNDS * 10 + 60}s]", "time": f"{END:.3f}"})[0]) for each in pair]
        assert points[0] == points[1], name
        if not points[0]:
            empty.add(name)
    assert {name for name in empty if not name.startswith(NOT_SIMULATED)} == set()


def test_a_label_that_comes_back_is_one_series(pair: Pair, samples: list[VmMetrics]) -> None:
    """Paused and resumed, renamed and back: ``rate()`` over both works."""
    vm = min(sample.uuid for sample in samples)
    found, warnings = asked(pair.reading, "query", {"query": f'rate(vm_cpu_seconds_total{{uuid="{vm}"}}[19m])', "time": f"{END:.3f}"})
    assert not warnings
    names = [element["metric"]["name"] for element in found["result"]]
    assert sorted(name.endswith("-renamed") for name in names) == [False, True]
    states, _ = asked(pair.reading, "query", {"query": "changes(vm_state_info[19m])", "time": f"{END:.3f}"})
    assert sum(element["metric"]["state"] == "paused" for element in states["result"]) == 1


def test_a_name_that_matches_no_vm_is_an_empty_answer(pair: Pair) -> None:
    for selector in ('{name="nosuch"}', '{name=~""}', '{uuid="nosuch"}', '{name=~"no.*"}'):
        found, warnings = asked(pair.reading, "query", {"query": f"vm_state{selector}", "time": f"{END:.3f}"})
        assert (found["result"], warnings) == ([], [])


def test_external_labels_are_warned_of_and_may_be_given_or_left_out(pair: Pair, served: str, tmp_path: Path) -> None:
    program, there = pair.reading.program, len(pair.own.query("vm_state", START + 300))
    assert there > 1
    for settings, shown in (({}, 0), ({"filter_external_labels": False}, there)):
        reading = Prometheus(tmp_path / str(shown), {}, program=program, remote_read=served)
        reading.rules = False
        reading.external_labels["region"] = "north"
        reading.read_settings |= settings
        with reading:
            assert len(reading.query("vm_state", START + 300)) == shown
            warnings = reading.warnings("vm_state", START + 300)
            assert any("region" in text and "filter_external_labels" in text for text in warnings) is (shown == 0)
            assert not reading.warnings("up", START + 300)
