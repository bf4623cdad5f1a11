"""One host's collectors in turn: what a VM's sample costs the collector and libvirtd, its memory, its start and its size.

A real libvirtd with many VMs whose CPUs are halted: every counter is there, and QEMU takes no CPU from what is measured. Each
collector runs alone, as a service of that host, for some samples; then the next one, and all of them again for several rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from bench.node_collectors import FLOOR, Collector, Place, Watch, collectors
from bench.part import Asked, figure, origin, quiet
from bench.rivals import installed_bytes, refused
from tests.support.broker import Broker
from tests.support.lab import Lab, LabError, Node, Process, await_true
from tests.support.lab_guest import make_disk, paused_xml
from tools.documents import table
from virtflow.producer.records.inventory_cache import per_round
from virtflow.runtime.configuration import load
from virtflow.runtime.kafka.topic_admin import TopicAdmin
from virtflow.runtime.settings import Producer

VMS: Final = (1, 100, 500)
ROUNDS: Final = {1: 2, 100: 2, 500: 1}
"""By the number of VMs: one round of all collectors with 500 takes a quarter of an hour; it shows no spread."""
SAMPLES: Final = {1: 20, 100: 6, 500: 4}
INTERVAL_SECONDS: Final = {1: 1.0, 100: 5.0, 500: 10.0}
"""By the number of VMs: libvirtd needs a second for 500, and a collector that gives up on a slow call at a fifth of the interval, as
virtflow does, is to have more than that: 10 s is its usual interval."""
KEPT_UP: Final = 0.7
"""Where fewer of the samples that were due were seen, so many were taken; else none is missing but by the moment of looking."""
READY_SECONDS: Final = 90.0
POLL_SECONDS: Final = 0.02
HALT: Final = bytes.fromhex("fab030e643b001e640e640f4ebfd")
"""cli; the timer put into one-shot mode (0x30 to port 0x43, 1 twice to 0x40); hlt; jmp to the hlt: what these VMs have in place of a
firmware, at the address where a CPU begins. A timer that ticks wakes each QEMU 36 times a second, halted or not."""
ROM_BYTES: Final = 0x10000
RESET_BYTES: Final = 16
"""A CPU begins so many bytes before the end of the firmware."""
BATCH: Final = 25
RATIO_GOAL: Final = 1.15
OURS: Final = "virtflow producer"
NOT_IN_GO: Final = frozenset({"collectd"})


@dataclass(frozen=True, slots=True)
class Seen:
    """One collector in one round: microseconds of CPU per VM-sample, MiB, seconds."""

    client: float
    daemon: float
    values: float
    resident: float
    private: float
    start: float
    wall: float
    kept_up: float = 1.0


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all the threads it ever had, to the nanosecond (source: clock_getcpuclockid(3), by its kernel ABI)."""
    return time.clock_gettime((~pid << 3) | 2)


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident memory of a process, and the part of it that is its own alone: no file's."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = [int(status.partition(f"{key}:")[2].split()[0]) / 1024 for key in ("VmRSS", "RssAnon")]
    return found[0], found[1]


def start_halted(node: Node, numbers: Sequence[int], folder: Path) -> None:
    """Starts VMs whose CPU halts at its first instruction."""
    rom = folder / "halt.rom"
    rom.write_bytes(HALT.rjust(ROM_BYTES - RESET_BYTES + len(HALT), b"\xf4").ljust(ROM_BYTES, b"\xf4"))
    for start in range(0, len(numbers), BATCH):
        commands = []
        for number in numbers[start : start + BATCH]:
            path, disk = folder / f"{number}.xml", make_disk(folder / f"{number}.img")
            path.write_text(
                paused_xml(f"bench-{number:04d}", str(uuid4()), disk).replace("</os>", f"<loader type='rom'>{rom}</loader></os>")
            )
            commands.append(f"create {path}")
        node.virsh("; ".join(commands), timeout_seconds=600.0)


def measure(folder: Path, counts: Sequence[int] = VMS) -> dict[str, Any]:
    """All collectors at every number of VMs."""
    rows: list[dict[str, Any]] = []
    with Lab(nodes=1) as lab, Broker(folder / "broker", host=lab.network.address(254)) as broker:
        admin = TopicAdmin(load(None, {"VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": broker.address}))
        admin.create(admin.states(), dry_run=False)
        place = Place(lab.nodes[0], broker.address, folder, 1.0)
        known, failures = collectors(place)  # builds what is to be built before anything is measured
        running = 0
        for count in counts:
            start_halted(place.node, range(running, count), folder)
            running = count
            place = replace(place, interval_seconds=INTERVAL_SECONDS[count])
            known, failures = collectors(place)
            found: dict[str, list[Seen]] = {each.name: [] for each in known}
            for number in range(ROUNDS[count]):
                with quiet():
                    for each in known if number % 2 == 0 else reversed(known):
                        found[each.name].append(_look(place, each, count))
                        print(count, each.name, found[each.name][-1], file=sys.stderr)
            how = {"vms": count, "samples": SAMPLES[count], "interval_seconds": INTERVAL_SECONDS[count]}
            rows += [how | {"collector": name, "rounds": [asdict(one) for one in seen]} for name, seen in found.items()]
    failures |= refused()
    sizes = {each.name: installed_bytes(each.package) for each in known if each.package}
    return {"rows": rows, "failures": failures, "installed_bytes": sizes, "not_measured": [n for n in VMS if n not in counts]}


def _look(place: Place, collector: Collector, vms: int) -> Seen:
    """The collector's start, its way into steadiness, and then some samples of it."""
    watch = collector.watch(place)
    log = place.folder / f"{collector.name.replace(' ', '-').replace('/', '-')}.log"
    began = time.monotonic()
    process = place.node.spawn(collector.command(place), log, collector.environment)
    try:
        await_true(watch.arrived, READY_SECONDS, f"{collector.name} shows its VMs (see {log})")
        started = time.monotonic() - began
        if collector.settles:
            # Until every VM's XML has been read: it is measured after that, as it runs the rest of its life.
            a_round = per_round(vms, place.interval_seconds, Producer().inventory_seconds)
            time.sleep(place.interval_seconds * (1 + -(-vms // a_round)))
        return _sampled(place, process, watch, (vms, started, collector.pulled))
    finally:
        _end(process)
        watch.close()


def _sampled(place: Place, process: Process, watch: Watch, about: tuple[int, float, bool]) -> Seen:
    """Some samples on the interval's grid; a scrape that takes longer than that delays the next."""
    (vms, started, pulled), interval, daemon = about, place.interval_seconds, place.node.libvirtd.pid
    watch.sample()
    seen, began = len(watch.moments()), time.monotonic()
    client_cpu, daemon_cpu, walls, values = cpu_seconds(process.pid), cpu_seconds(daemon), [], []
    for _ in range(SAMPLES[vms]):
        begin = time.monotonic()
        values.append(watch.sample())
        walls.append(time.monotonic() - begin)
        time.sleep(max(0.0, begin + interval - time.monotonic()))
    due = SAMPLES[vms] if pulled else (time.monotonic() - began) / interval
    client_cpu, daemon_cpu = cpu_seconds(process.pid) - client_cpu, cpu_seconds(daemon) - daemon_cpu
    watch.sample()
    kept_up = (len(watch.moments()) - seen) / due if watch.moments() else 1.0
    samples = due * vms * (1.0 if kept_up > KEPT_UP else max(kept_up, 1 / due))
    resident, private = memory_mib(process.pid)
    return Seen(
        client=client_cpu / samples * 1e6,
        daemon=daemon_cpu / samples * 1e6,
        values=max(values) / vms,
        resident=resident,
        private=private,
        start=started,
        wall=statistics.median(walls),
        kept_up=min(1.0, kept_up) if kept_up <= KEPT_UP else 1.0,
    )


def _end(process: Process) -> None:
    try:
        process.stop(10.0)
    except LabError:
        process.kill()


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    return measure(asked.folder)


def section(found: dict[str, Any]) -> list[str]:
    """The part of the page."""
    counts = sorted({row["vms"] for row in found["rows"]})
    rows = {count: [row for row in found["rows"] if row["vms"] == count] for count in counts}
    parts = [
        "## One host's collectors, side by side",
        origin(found, "scripts/bench node"),
        (
            f"Some samples (by the number of VMs, {', '.join(_how(rows[count][0]) for count in counts)}) "
            "of each collector, in turn, on a real libvirtd whose VMs have two vCPUs, a disk and a network interface, and a halted CPU; nothing happens to them, so that `virtflow producer` needs no Kafka client for events. µs are CPU time of a VM's sample; "
            "a collector with an interval of its own is taken to have kept it, unless its topic shows otherwise; memory is what is resident, of which the own part is no file's; the start is the time until the first values can be had; the wall "
            "time is a scrape's, where there is one."
        ),
    ]
    for count in counts:
        floor = next(statistics.median(_each(row, "daemon")) for row in rows[count] if row["collector"] == FLOOR)
        lines = table(HEAD, [_line(row, floor) for row in rows[count]])
        parts += [f"### {count} VM{'s' if count > 1 else ''}", lines, _goals(rows[count], floor)]
    sizes = [(name, f"{size / 1e6:.1f} MB") for name, size in found["installed_bytes"].items()]
    parts += [
        "### Installed",
        "Without Python, libvirt's client library and libc, which all share.",
        table(("collector", "on disk"), sizes),
    ]
    if found["not_measured"]:
        parts.append(f"Not measured on this machine: {', '.join(map(str, found['not_measured']))} VMs.")
    if found["failures"]:
        parts += ["### Not to be had", table(("rival", "why"), sorted(found["failures"].items()))]
    return parts


HEAD: Final = (
    "collector",
    "values a VM",
    "client µs",
    "client µs per value",
    "libvirtd µs",
    "times the bulk call",
    "memory MiB",
    "own MiB",
    "start s",
    "wall ms",
)


def _goals(rows: list[dict[str, Any]], floor: float) -> str:
    """What the producer was to reach beside the rivals, and whether it did."""
    ours = next(row for row in rows if row["collector"] == OURS)
    rivals = [row for row in rows if not row["collector"].startswith("virtflow") and row["collector"] != FLOOR]
    cheapest = min(rivals, key=_per_value, default=None)
    smallest = min((row for row in rivals if row["collector"] not in NOT_IN_GO), key=_resident, default=None)
    said = [f"libvirtd's part at most {RATIO_GOAL} times one bulk call's: {_reached(_middle(ours, 'daemon') / floor <= RATIO_GOAL)}"]
    if cheapest is not None:
        fewer = f"{_per_value(ours):.2f} µs of client CPU per value against {_per_value(cheapest):.2f} of {cheapest['collector']}"
        said.append(f"less than every rival, {fewer}: {_reached(_per_value(ours) < _per_value(cheapest))}")
    if smallest is not None:
        less = f"{_resident(ours):.0f} MiB against {_resident(smallest):.0f} of {smallest['collector']}"
        said.append(f"memory at most that of the exporters in Go, {less}: {_reached(_resident(ours) <= _resident(smallest))}")
    return f"Goals of `{OURS}`: {'; '.join(said)}."


def _how(row: dict[str, Any]) -> str:
    return f"{len(row['rounds'])} x {row['samples']} at {row['interval_seconds']:g} s for {row['vms']}"


def _reached(yes: bool) -> str:  # noqa: FBT001, a word for it
    return "reached" if yes else "**missed**"


def _middle(row: dict[str, Any], name: str) -> float:
    return statistics.median(_each(row, name))


def _per_value(row: dict[str, Any]) -> float:
    return _middle(row, "client") / _middle(row, "values")


def _resident(row: dict[str, Any]) -> float:
    return _middle(row, "resident")


def _each(row: dict[str, Any], name: str) -> list[float]:
    return [one[name] for one in row["rounds"]]


def _line(row: dict[str, Any], floor: float) -> tuple[str, ...]:
    values, kept = statistics.median(_each(row, "values")), min(_each(row, "kept_up"))
    return (
        row["collector"] if kept >= 1 else f"{row['collector']} (took {kept:.0%} of the samples that were due)",
        f"{values:.0f}",
        figure(_each(row, "client")),
        figure([client / values for client in _each(row, "client")], 2),
        figure(_each(row, "daemon")),
        f"{statistics.median(_each(row, 'daemon')) / floor:.2f}",
        figure(_each(row, "resident")),
        figure(_each(row, "private")),
        figure(_each(row, "start"), 1),
        f"{statistics.median(_each(row, 'wall')) * 1000:.0f}",
    )
