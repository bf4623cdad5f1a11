"""``scripts/soak``: the whole pipeline for hours on two real hypervisors while faults happen at random, and a checker beside it.

    scripts/soak --hours 2              200 VMs; writes docs/soak.json and docs/soak.md
    scripts/soak --hours 0.1 --vms 20   a try
    scripts/soak --seed 7               the same faults again

Needs root, the packages of the lab, and about 55 MB of memory for each VM. Exit code 1 where something was lost, repeated, or grew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import soak_plan as plans
from bench.part import where
from bench.soak_page import RESULTS, page
from bench.soak_plan import Kind, Planned, plan
from bench.soak_records import compared
from bench.soak_watch import HOUR, Processes, Scrapes, await_recovered, process_problems
from scripts.embedded_kafka import data_folder
from tests.support.broker import free_ports
from tests.support.lab import Guest, Lab, LabError, Node, Process, await_true
from tests.support.lab_pipeline import VIRTFLOW, Pipeline, Service
from tests.support.lab_scrape import fetch, try_scrape
from virtflow.runtime.configuration import load

PAGE: Final = RESULTS.with_suffix(".md")
UNITS: Final = RESULTS.parents[1] / "deploy" / "systemd"
NODES: Final = 2
MANY: Final = 8
RECOVERY_SECONDS: Final = 300.0
SETTLE_SECONDS: Final = 300.0
CALM_LOOKS: Final = 10
"""Seconds in a row in which nothing is left: a record's way takes a moment."""
LONGEST_PROBLEM: Final = 500
"""Characters of a problem that are kept."""
WARM_HOURS: Final = 0.5
"""Of the run, of which no slope of memory is made; a third of it where that is less."""


class Soak:
    """The pipeline with its history, and a second processors process that joins and leaves."""

    def __init__(self, lab: Lab, guests: Mapping[str, list[Guest]], pipeline: Pipeline) -> None:
        """Nothing of the history runs yet."""
        self.lab, self.guests, self.pipeline = lab, guests, pipeline
        listen, second = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.history = pipeline.folder / "history"
        own = {"VIRTFLOW_HISTORY_PATH": str(self.history), "VIRTFLOW_HISTORY_LISTEN": listen, "VIRTFLOW_HISTORY_INSTANCE": "soak"}
        self.writer = self._service("history", ["history", "write"], own)
        joining = {"VIRTFLOW_PROCESSORS_LISTEN": second, "VIRTFLOW_PROCESSORS_INSTANCE": "second"}
        self.second = self._service("processors-2", ["processors"], joining)
        self.addresses = {"processors": pipeline.processors_address, "exporter": pipeline.address, "history": listen}

    def _service(self, name: str, words: Sequence[str], own: Mapping[str, str]) -> Service:
        log = self.pipeline.folder / f"{name}.log"
        return Service(name, log, lambda: Process([VIRTFLOW, *words], log, {**self.pipeline.environment, **own}))

    @property
    def services(self) -> list[Service]:
        """All that are looked at."""
        return [*self.pipeline.services, self.writer]

    @property
    def vms(self) -> int:
        """How many there are."""
        return sum(map(len, self.guests.values()))

    def recovered(self) -> bool:
        """Every node is up, every VM is shown and answers, and neither processors nor history have a record left to take."""
        seen = try_scrape(self.pipeline.address)
        if seen is None:
            return False
        nodes = {dict(labels)["node"]: value for (name, labels), value in seen.series.items() if name == "virtflow_node_up"}
        answers = [value for (name, _), value in seen.series.items() if name == "vm_responsive"]
        return nodes == dict.fromkeys(self.guests, 1.0) and len(answers) == self.vms == sum(answers) and self.left() == 0

    def left(self) -> float:
        """Records that the history has not taken, and messages that the processors are handling; more than none where they do not answer."""
        try:
            texts = [fetch(f"http://{self.addresses[name]}/metrics") for name in ("history", "processors")]
        except OSError:
            return 1.0
        names = ("virtflow_history_lag_messages{", "virtflow_processors_in_flight ")
        return sum(float(line.rpartition(" ")[2]) for text in texts for line in text.splitlines() if line.startswith(names))

    def close(self) -> None:
        """End what is not the pipeline's own."""
        self.writer.close()
        self.second.close()


# -- the faults, each for so many seconds


def libvirtd_restarts(soak: Soak, node: Node, planned: Planned) -> None:
    """TERM and start."""
    del soak, planned
    node.restart_libvirtd()


def libvirtd_hangs(soak: Soak, node: Node, planned: Planned) -> None:
    """SIGSTOP."""
    del soak
    node.pause_libvirtd()
    time.sleep(planned.seconds)
    node.resume_libvirtd()


def vms_stuck(soak: Soak, node: Node, planned: Planned) -> None:
    """SIGSTOP of one QEMU or of several."""
    count = 1 if planned.kind is plans.VM_STUCK else MANY
    stuck = random.Random(planned.target).sample(soak.guests[node.name], min(count, len(soak.guests[node.name])))  # noqa: S311, repeatable
    node.freeze(*stuck)
    time.sleep(planned.seconds)
    node.thaw(*stuck)


def broker_down(soak: Soak, node: Node, planned: Planned) -> None:
    """Stopped as an operator does."""
    del node
    soak.pipeline.broker.stop()
    time.sleep(planned.seconds)
    soak.pipeline.broker.start()


def broker_killed(soak: Soak, node: Node, planned: Planned) -> None:
    """SIGKILL in the middle of whatever it does."""
    del node, planned
    soak.pipeline.broker.kill()
    soak.pipeline.broker.start()


def writer_killed(soak: Soak, node: Node, planned: Planned) -> None:
    """SIGKILL."""
    del node, planned
    soak.writer.kill()
    soak.writer.start()


def rebalances(soak: Soak, node: Node, planned: Planned) -> None:
    """Another member of the group joins and leaves."""
    del node
    soak.second.start()
    time.sleep(planned.seconds)
    status = soak.second.stop()
    if status != 0:
        raise LabError(f"the second processors process ended with {status}")


CAUSES: Final = {
    plans.LIBVIRTD_RESTARTS: libvirtd_restarts,
    plans.LIBVIRTD_HANGS: libvirtd_hangs,
    plans.VM_STUCK: vms_stuck,
    plans.VMS_STUCK: vms_stuck,
    plans.BROKER_DOWN: broker_down,
    plans.BROKER_KILLED: broker_killed,
    plans.WRITER_KILLED: writer_killed,
    plans.REBALANCES: rebalances,
}


@dataclass
class Happened:
    """What was caused of a kind: how long each time, and how long the pipeline took afterwards (seconds)."""

    seconds: list[float] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)


def cause_all(soak: Soak, seed: int, until: float) -> tuple[dict[Kind, Happened], list[str]]:
    """One fault after the other until a moment (monotonic seconds); what happened, and what did not recover."""
    happened: dict[Kind, Happened] = {}
    problems: list[str] = []
    for planned in plan(seed):
        if time.monotonic() + planned.rest_seconds + planned.seconds > until:
            return happened, problems
        time.sleep(planned.rest_seconds)
        node = soak.lab.nodes[planned.target % len(soak.lab.nodes)]
        began = time.monotonic()
        try:
            CAUSES[planned.kind](soak, node, planned)
        except (LabError, AssertionError) as error:  # a service that was to be killed or stopped is not there any more
            problems.append(f"{planned.kind.name}: {str(error)[:LONGEST_PROBLEM]}")
        lasted = time.monotonic() - began
        took = await_recovered(soak.recovered, RECOVERY_SECONDS)
        print(f"soak: {planned.kind.name}: {lasted:.0f} s, recovered after {took} s", file=sys.stderr, flush=True)
        of_kind = happened.setdefault(planned.kind, Happened())
        of_kind.seconds.append(lasted)
        of_kind.recoveries.append(RECOVERY_SECONDS if took is None else took)
        if took is None:
            problems.append(f"{planned.kind.name}: not recovered within {RECOVERY_SECONDS:.0f} s")
    raise AssertionError("a plan has no end")


def settle(soak: Soak) -> tuple[float, list[str]]:
    """Ends the producers, waits until all that they sent is stored, and ends the rest; what the producers counted as dropped, and what went wrong."""
    seen = try_scrape(soak.pipeline.address)
    dropped = sum(value for (name, _), value in seen.series.items() if name == "virtflow_node_drops_total") if seen else 0.0
    problems = [] if seen else ["the exporter does not answer in the end"]
    problems += _ended(soak.pipeline.producers)
    calm = 0
    deadline = time.monotonic() + SETTLE_SECONDS
    while calm < CALM_LOOKS and time.monotonic() < deadline:
        time.sleep(1.0)
        calm = 0 if soak.left() else calm + 1
    if calm < CALM_LOOKS:
        problems.append(f"{soak.left():.0f} records are still left {SETTLE_SECONDS:.0f} s after the producers' end")
    return dropped, problems + _ended([soak.pipeline.processors, soak.writer, soak.pipeline.exporter])


def _ended(services: Iterable[Service]) -> list[str]:
    """Ends services with TERM; those that did not end with 0, in words."""
    problems = []
    for service in services:
        try:
            status = service.stop()
        except LabError as error:
            problems.append(f"{service.name}: {str(error)[:LONGEST_PROBLEM]}")
        else:
            problems += [f"{service.name} ended with {status}"] if status else []
    return problems


def unit_environment(name: str) -> dict[str, str]:
    """The environment that a unit of systemd gives its service: what the service relies on beside its settings."""
    lines = (UNITS / f"{name}.service").read_text().splitlines()
    return dict(line.removeprefix("Environment=").split("=", 1) for line in lines if line.startswith("Environment="))


@contextmanager
def running(given: argparse.Namespace, folder: Path) -> Iterator[Soak]:
    """Everything, once it shows all VMs."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(NODES))
        share = given.vms // NODES
        guests = {node.name: node.load_paused(share, node.name) for node in lab.nodes}
        settings = {"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": str(given.interval), "VIRTFLOW_PROCESSORS_INSTANCE": "first"}
        pipeline = stack.enter_context(Pipeline(lab, folder, settings, whole=False))
        pipeline.own_settings = dict.fromkeys((node.name for node in lab.nodes), unit_environment("virtflow-producer"))
        pipeline.start_services()
        soak = Soak(lab, guests, pipeline)
        stack.callback(soak.close)
        soak.writer.start()
        await_true(soak.recovered, SETTLE_SECONDS, "every VM is shown")
        yield soak


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The soak's results as plain data."""
    with running(given, folder) as soak:
        began, wall = time.monotonic(), time.time()
        until = began + given.hours * HOUR
        warm = began + min(WARM_HOURS, given.hours / 3) * HOUR
        scrapes = Scrapes(soak.pipeline.address, soak.vms)
        with Processes(soak.services, soak.addresses) as processes, scrapes:
            happened, problems = cause_all(soak, given.seed, until)
            time.sleep(max(0.0, until - time.monotonic()))
        hours = (time.monotonic() - began) / HOUR
        dropped, ends = settle(soak)
        records = compared(load(None, soak.pipeline.environment), soak.history)
    seen = processes.seen(warm)
    return {
        "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(wall)),
        "hours": round(hours, 3),
        "seed": given.seed,
        "nodes": NODES,
        "vms": soak.vms,
        "interval_seconds": given.interval,
        "faults": [_told(kind, one) for kind, one in sorted(happened.items(), key=lambda pair: (pair[0].row, pair[0].name))],
        "records": asdict(records),
        "rounds_dropped": dropped,
        "scrapes": scrapes.seen(),
        "processes": seen,
        "problems": [*problems, *ends, *records.problems, *scrapes.problems, *process_problems(seen)],
    }


def _told(kind: Kind, one: Happened) -> dict[str, Any]:
    return {
        "row": kind.row,
        "kind": kind.name,
        "times": len(one.seconds),
        "seconds": round(sum(one.seconds), 1),
        "recovery_worst_seconds": round(max(one.recoveries), 1),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Runs it and writes both files; 1 where something was not as it has to be."""
    given = _parser().parse_args(words)
    folder = data_folder() / "soak"
    shutil.rmtree(folder, ignore_errors=True)
    machine = where()
    found = {"command": f"scripts/soak --hours {given.hours:g} --vms {given.vms} --seed {given.seed}"} | measure(given, folder) | machine
    if given.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        PAGE.write_text(page(found))
    print(page(found))
    return 1 if found["problems"] else 0


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    about, _, examples = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=2.0, help="how long the faults go on")
    parser.add_argument("--vms", type=int, default=200, help="paused VMs, half of them on each node")
    parser.add_argument("--interval", type=float, default=10.0, help="sampling interval in seconds")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)), help="chooses the faults; a random one unless given")
    parser.add_argument("--no-write", dest="write", action="store_false", help="print the page and leave the files alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
