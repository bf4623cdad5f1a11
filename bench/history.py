"""The history's numbers: bytes per value, times of queries, the writer's CPU, lag, catch-up and memory.

The load for bytes per value is made of a seed (``noisy_rows``): each VM has a daily curve, a noise that remembers (AR(1)), and every counter
multiplies the load with a log-normal factor of its own at each sample, so that nothing repeats. Counters are what libvirt counts:
nanoseconds, bytes, requests; memory moves by pages.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.part import Asked, origin
from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.history import Writer, fleet_samples, produce, producing_client, writing
from tools.documents import table
from virtflow.history.maintenance.compaction import Step, compact_day
from virtflow.history.maintenance.kept import Kept, is_compact
from virtflow.history.maintenance.rollup import hours_of
from virtflow.history.query.range import Range, series
from virtflow.history.query.report import Report, report
from virtflow.history.storage.delta import Store
from virtflow.history.storage.parquet import filled
from virtflow.history.storage.table_schemas import COLUMNS, DAILY, HOURLY, INVENTORY_ROWS, SAMPLES, SECONDS, TIME, columns_of, kind_columns
from virtflow.history.writer.dedup import Changes
from virtflow.history.writer.rows.arrow import decimals
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.catalogue.types import Guest, Rollup
from virtflow.schemas.records import VmInventory

DAY: Final = 86_400
SEED: Final = 7
NOISE: Final = 0.3
"""Standard deviation of the logarithm of each counter's own factor."""
RARE: Final = 0.001
"""Chance of an error or a dropped packet at a sample."""
CATCH_UP_SECONDS: Final = 3_600
"""How long the writer may take to be level again."""
MOST_SECONDS: Final = 240.0
"""How long it is away, at most."""
LIVE_LATE_SECONDS: Final = 0.5
"""By how much a live fleet's second may be sent late: what is measured is not a live fleet's otherwise."""
LIVE_SEQUENCE: Final = 10_000
"""The first round of the live fleet, after those of the backlog."""
TURNS: Final = 10
"""In which the hosts of a live fleet have their rounds, spread over a second."""

Numbers = np.ndarray[Any, np.dtype[Any]]

RATES: Final = {"seconds": 1.0, "bytes": 400_000.0, "packets": 300.0, "requests": 60.0, "faults": 500.0}
"""Growth per second of full load, by the word in a counter's name."""


def noisy_rows(vm: int, start: float, count: int, interval: float) -> pa.Table:
    """One VM's samples as rows of all kinds: two vCPUs, a NIC, a disk."""
    dice = np.random.default_rng([SEED, vm])
    times = np.round((start + np.arange(count) * interval + dice.normal(0, 0.002, count)) * 1e6).astype(np.int64)
    noise = np.zeros(count)
    shocks = dice.normal(0, 0.05, count)
    for n in range(1, count):
        noise[n] = 0.9 * noise[n - 1] + shocks[n]
    load = np.clip(0.35 + 0.25 * np.sin(np.arange(count) * interval / DAY * 2 * np.pi + vm) + noise, 0.01, 1.0)
    devices = {"vm": [""], "vcpu": ["0", "1"], "network": [f"vnet{vm}"], "block": ["vda"]}
    parts = [_rows_of(kind, device, vm, times, (load, dice, interval)) for kind, names in devices.items() for device in names]
    return pa.concat_tables(parts)


def _rows_of(kind: str, device: str, vm: int, times: Numbers, shape: tuple[Numbers, np.random.Generator, float]) -> pa.Table:
    load, dice, interval = shape
    count = len(times)
    moments = pa.array(times).cast(TIME)
    columns: dict[str, Any] = {
        "day": pa.array((times // (DAY * 1_000_000)).astype(np.int32), pa.int32()).cast(pa.date32()),
        "time": moments,
        "monitor_time": moments,
        "sequence": pa.array(np.arange(count)),
        "interval_seconds": pa.repeat(pa.scalar(interval), count),
    }
    words = {"uuid": str(uuid.UUID(int=Random(vm).getrandbits(128), version=4)), "kind": kind, "device": device, "name": f"vm-{vm}"}  # noqa: S311
    columns |= {name: pa.repeat(pa.scalar(word), count) for name, word in {**words, "node": f"node-{vm % 20}", "boot_id": "b" * 16}.items()}
    for column in columns_of(kind):
        if isinstance(column.metric.source, Guest):
            continue  # guests' agents are asked on request only
        values = _values(column.name, column.rollup, load, (dice, interval))
        columns[column.name] = decimals(values.astype(np.float64)) if column.type == SECONDS else pa.array(values, column.type)
    filled = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in SAMPLES.schema]
    return pa.table(filled, schema=SAMPLES.schema)


def _values(name: str, rollup: Rollup, load: Numbers, shape: tuple[np.random.Generator, float]) -> Numbers:
    dice, interval = shape
    count = len(load)
    if rollup is Rollup.INCREASE:
        if any(word in name for word in ("errors", "dropped", "hugetlb", "swap")):
            return np.cumsum(dice.random(count) < RARE)
        rate = next((rate for word, rate in RATES.items() if word in name), 10.0)
        grown = rate * interval * load * dice.lognormal(0, NOISE, count)
        if "seconds" in name:
            return np.cumsum(np.round(grown * 1e9).astype(np.int64)) / 1e9
        return np.cumsum(grown.astype(np.int64))
    if rollup is Rollup.SPREAD and any(word in name for word in ("rss", "free", "usable", "caches", "allocation")):
        return (2.0**30 * (1 + load) + dice.normal(0, 2.0**20, count)).astype(np.int64) // 4096 * 4096
    return np.full(count, 1)


def bytes_per_value(folder: Path, vms: int = 40) -> dict[str, Any]:
    """A day of VMs at ten seconds, compacted as the upkeep does it."""
    store = Store(History(path=str(folder / "size")))
    opened = store.make(SAMPLES)
    start = time.time() // DAY * DAY - 2 * DAY
    kept = Kept(opened)
    for vm in range(vms):
        rows = noisy_rows(vm, start, DAY // 10 - 1, 10.0)
        kept.commit([opened.write_file(time.strftime("%Y-%m-%d", time.gmtime(start)), [rows], names=filled(rows))], [])
    files = tuple(opened.files())
    began = time.process_time()
    compact_day(kept, Step("compact", SAMPLES, files[0].day, files))
    spent = time.process_time() - began
    after = [file for file in opened.files() if is_compact(file)]
    names = [column.name for column in COLUMNS]
    values = sum(opened.dataset().to_table(columns=[name]).column(0).drop_null().length() for name in names)
    samples = vms * (DAY // 10 - 1)
    size = sum(file.size_bytes for file in after)
    return {
        "vms": vms,
        "samples": samples,
        "values_per_sample": values / samples,
        "bytes_per_value": size / values,
        "bytes_per_sample": size / samples,
        "compaction_microseconds_per_sample": spent / samples * 1e6,
        "raw_day_seconds": _timed(lambda: _raw_day(store, start)),
        "seed": SEED,
    }


def _raw_day(store: Store, start: float) -> None:
    vm = str(uuid.UUID(int=Random(3).getrandbits(128), version=4))  # noqa: S311, an identity
    settings = History(path=store.uri)
    answer = series(store, settings, Range("vm_cpu_seconds_total", (vm,), start, start + DAY, 0))
    assert answer.points.num_rows > DAY // 10 - 10


def month(folder: Path, vms: int = 1_000) -> dict[str, Any]:
    """A month of hourly rows of many VMs: one VM's month, and everybody's usage report in a process of its own."""
    path = folder / "month"
    store = Store(History(path=str(path)))
    hourly = Kept(store.make(HOURLY))
    store.make(SAMPLES)
    store.make(DAILY)
    start = (time.time() // DAY - 40) * DAY // DAY * DAY
    first = time.gmtime(start)
    begin = time.mktime((first.tm_year, first.tm_mon, 1, 0, 0, 0, 0, 0, 0)) - time.timezone
    template = noisy_rows(0, begin, 4 * 24 * 30, 900.0)
    kinds = [hours_of(kind, template.filter(pc.equal(template.column("kind"), kind))) for kind in ("vm", "vcpu", "network", "block")]
    rows = pa.concat_tables(kinds)
    identities = sorted(str(uuid.UUID(int=Random(vm).getrandbits(128), version=4)) for vm in range(vms))  # noqa: S311, identities
    for day in sorted(rows.column("day").unique().to_pylist()):
        of_day = rows.filter(pc.equal(rows.column("day"), pa.scalar(day)))
        for kind in of_day.column("kind").unique().to_pylist():
            of_kind = of_day.filter(pc.equal(of_day.column("kind"), kind))
            index, names = of_kind.schema.get_field_index("uuid"), kind_columns(HOURLY, kind)
            parts = [of_kind.set_column(index, "uuid", pa.repeat(pa.scalar(identity), of_kind.num_rows)) for identity in identities]
            added = hourly.opened.write_file(day.isoformat(), [pa.concat_tables(parts)], compact=True, names=names)
            hourly.commit([added], [])
    inventory = TableWriter(store.make(INVENTORY_ROWS), Changes())
    inventory.begin(["p"])
    for number, identity in enumerate(identities):
        inventory.take("p", number, VmInventory(uuid=identity, name=f"vm-{number}", node="n", collected=begin, project=f"p{number % 30}"))
    inventory.commit()
    settings = History(path=str(path))
    asked = Range("vm_cpu_seconds_total", (identities[vms // 2],), begin, begin + 30 * DAY, 3600)
    name = time.strftime("%Y-%m", time.gmtime(begin))
    used = _in_a_process(path, name)
    return {
        "vms": vms,
        "rows": sum(file.rows for file in hourly.opened.files()),
        "month_of_a_vm_seconds": _timed(lambda: series(store, settings, asked)),
        "report_seconds": _timed(lambda: report(store, settings, Report("usage", name, "project")), 3),
        "report_process": used,
    }


def _in_a_process(path: Path, name: str) -> dict[str, float]:
    """The report as a user runs it: seconds and peak memory in MiB of the whole process."""
    program = Path(sys.executable).with_name("virtflow")
    command = [str(program), "history", "report", "usage", "--month", name, "--by", "vm", "--history", str(path), "--format", "csv"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return {"seconds": time.monotonic() - began, "peak_mib": usage.ru_maxrss / 1024}


def writer(folder: Path, backlog: int = 300, live: int = 30, vms: int = 1_000) -> dict[str, Any]:
    """The writer on a real broker: an outage's backlog of ``backlog`` seconds first, then ``live`` seconds of 1,000 VMs at one second."""
    now = float(int(time.time()))
    with Broker(folder / "broker") as broker:
        assert virtflow("topics", "create", "--bootstrap-servers", broker.address).returncode == 0
        sent = 0
        for start in range(0, backlog, 10):
            rounds = range(start, min(start + 10, backlog))
            sent += produce(
                broker.address, "vm.metrics", fleet_samples(20, vms // 20, rounds, interval=1.0, start=now - backlog, steady=False)
            )
        each = Writer(broker.address, folder / "history", folder, {"VIRTFLOW_HISTORY_COMMIT_SECONDS": "5", "VIRTFLOW_LOG_LEVEL": "warning"})
        with writing(each):
            caught = _caught_up(each, sent) | {"vms": vms, "backlog_seconds": backlog}
            return caught | {"times_live": backlog / caught["catch_up_seconds"]} | _live(each, broker, live, vms)


def _caught_up(each: Writer, sent: int) -> dict[str, Any]:
    """How long a backlog took from the start of the process to the last commit, and what it cost."""
    began = time.monotonic()
    while _metric(each, 'virtflow_history_records_total{table="samples"}') < sent or _metric(each, "virtflow_history_waiting_records"):
        assert time.monotonic() - began < CATCH_UP_SECONDS, each.tail
        time.sleep(0.5)
    seconds = time.monotonic() - began
    assert each.process is not None
    cpu, peak = _process(each.process.pid)
    return {"samples": sent, "catch_up_seconds": seconds, "cpu_microseconds_per_sample": cpu / sent * 1e6, "peak_mib": peak}


def _live(each: Writer, broker: Broker, seconds: int, vms: int) -> dict[str, Any]:
    lags = []
    assert each.process is not None
    before, _ = _process(each.process.pid)
    sent = 0
    client = producing_client(broker.address)
    for second in range(seconds):
        sequence = LIVE_SEQUENCE + second
        began = time.monotonic()
        samples = list(
            fleet_samples(20, vms // 20, range(sequence, sequence + 1), interval=1.0, start=time.time() - sequence, steady=False)
        )
        # Hosts of a fleet have their rounds at all times of a second. All at one moment would make the lag that of the commits' phase.
        for turn in range(TURNS):
            now = time.time()
            share = [msgspec.structs.replace(one, collected=now) for one in samples[turn::TURNS]]
            sent += produce(broker.address, "vm.metrics", share, client=client)
            time.sleep(max(0.0, (turn + 1) / TURNS - (time.monotonic() - began)))
        late = time.monotonic() - began - 1.0
        assert not second or late < LIVE_LATE_SECONDS, f"second {second} of the live fleet was sent {late:.1f} s late"
        lags.append(_metric(each, 'virtflow_history_lag_seconds{table="samples"}'))
    after, peak = _process(each.process.pid)
    return {
        "live_seconds": seconds,
        "lag_median_seconds": statistics.median(lags[seconds // 2 :]),
        "lag_worst_seconds": max(lags[seconds // 2 :]),
        "live_cpu_microseconds_per_sample": (after - before) / sent * 1e6,
        "live_peak_mib": peak,
    }


def _metric(each: Writer, line: str) -> float:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{each.port}/metrics", timeout=5) as reply:
            found = reply.read().decode().splitlines()
    except OSError:
        return -1.0
    return next((float(text.rpartition(" ")[2]) for text in found if text.startswith(f"{line} ")), 0.0)


def _process(pid: int) -> tuple[float, float]:
    """CPU seconds and peak memory in MiB of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = Path(f"/proc/{pid}/status").read_text()
    return cpu, int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _timed(call: Callable[[], object], times: int = 5) -> float:
    """The median time of a call, after one to warm up."""
    call()
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def measure(folder: Path, backlog: int) -> dict[str, Any]:
    """All of it."""
    return {"size": bytes_per_value(folder), "month": month(folder), "writer": writer(folder, backlog)}


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    return measure(asked.folder, int(min(asked.seconds, MOST_SECONDS)))


def section(history: dict[str, Any]) -> list[str]:
    """The part of the page."""
    size, month, writer = history["size"], history["month"], history["writer"]
    return [
        "## The long history",
        origin(history, f"scripts/bench history --seconds {writer['backlog_seconds']}"),
        (
            f"Size: a day of {size['vms']} VMs at 10 s, {size['values_per_sample']:.0f} values a sample, compacted; daily curves, remembered noise, "
            f"and a log-normal factor on each counter at each sample (`bench/history.py`, `noisy_rows`, seed {size['seed']}). "
            f"Reports: a month of hours of {month['vms']} VMs, copies of one VM's noisy month. Writer: {writer['vms']} VMs at 1 s, of the smooth simulator; "
            "a commit's oldest record has waited for up to `commit_seconds` (5 s here) longer than its newest."
        ),
        table(
            ("what", "value"),
            [
                ("bytes per value, compacted", f"{size['bytes_per_value']:.2f}"),
                ("bytes per VM-sample, compacted", f"{size['bytes_per_sample']:.0f}"),
                ("compaction, CPU per VM-sample", f"{size['compaction_microseconds_per_sample']:.1f} µs"),
                ("a day of one VM, every sample", f"{1000 * size['raw_day_seconds']:.0f} ms"),
                ("a month of one VM, by the hour", f"{1000 * month['month_of_a_vm_seconds']:.0f} ms"),
                ("a month's usage report by VM, as a command", f"{month['report_process']['seconds']:.1f} s"),
                ("its peak memory", f"{month['report_process']['peak_mib']:.0f} MiB"),
                ("writer, CPU per VM-sample in catch-up", f"{writer['cpu_microseconds_per_sample']:.0f} µs"),
                ("writer, CPU per VM-sample live", f"{writer['live_cpu_microseconds_per_sample']:.0f} µs"),
                (f"catch-up after {writer['backlog_seconds']} s away", f"{writer['times_live']:.1f} times live"),
                ("lag live of a commit's newest record, median", f"{writer['lag_median_seconds']:.1f} s"),
                ("lag live of a commit's newest record, worst", f"{writer['lag_worst_seconds']:.1f} s"),
                ("writer's peak memory, with that backlog", f"{writer['peak_mib']:.0f} MiB"),
            ],
        ),
    ]
