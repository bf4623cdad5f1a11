"""The running pipeline of scripts/up: broker, topics, processors, exporter, the history and its server, a producer or simulated nodes, and Prometheus.

The programs are the real ones with the real settings; this file only chooses ports and the order. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scripts.embedded_kafka import CHECKOUT, CannotRunError, data_folder
from scripts.supervise import Interrupted, Part, PartError, Supervisor, await_true

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOST = "127.0.0.1"
LIBVIRT_SECONDS = 10.0
READY_SECONDS = 60.0
SMOKE_SECONDS = 90.0
SHOWN_VMS = 5
STUCK_VMS = 1
"""Of the simulated VMs of each node: hang now and then, so that there is one to be found."""
EXAMPLE_SQL = "SELECT name, max(time) FROM vms GROUP BY 1 LIMIT 5"
"""A first question to the history: it and its answer fit into 80 columns."""

COUNT_VMS = """
import libvirt, sys
libvirt.registerErrorHandler(lambda *_: None, None)
try:
    print(len(libvirt.openReadOnly(sys.argv[1]).listAllDomains()))
except libvirt.libvirtError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of everything that listens."""

    kafka: int = 9092
    kafka_controller: int = 9093
    exporter: int = 9177
    processors: int = 9178
    history: int = 9179
    history_serve: int = 9180
    prometheus: int = 9090


class Source(NamedTuple):
    """Where the VMs come from: the ``virtflow`` command that brings them, and why this one, for people."""

    command: str
    why: str


def free_ports() -> Ports:
    """Return ports that nobody listens on, chosen by the system."""
    names = Ports.__dataclass_fields__
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind((HOST, 0))
        return Ports(**{name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)})


def refuse_taken_ports(ports: Ports) -> None:
    """Raise CannotRunError when something listens on one of them, naming all of these and the switch that moves each."""
    taken = []
    for name in Ports.__dataclass_fields__:
        port = getattr(ports, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                switch = f"--{name.replace('_', '-')}-port"
                taken.append(f"{HOST}:{port} for {name} cannot be used ({error.strerror}): choose another with {switch} NUMBER")
    if taken:
        raise CannotRunError("\n  ".join([*taken, "(`ss -ltnp` shows who listens; --free-ports chooses all of them anew)"]))


def choose_source(wanted: str, uri: str, *, needs_vms: bool) -> Source:
    """Return the producer where libvirt answers at ``uri``, else the simulator; ``wanted`` decides when it is not "auto"."""
    if wanted == "simulator":
        return Source("simulate", "simulated nodes, as --source simulator says")
    if wanted == "libvirt":
        return Source("producer", f"the VMs of {uri}, as --source libvirt says")
    try:
        asked = subprocess.run([sys.executable, "-c", COUNT_VMS, uri], capture_output=True, text=True, timeout=LIBVIRT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Source("simulate", f"simulated nodes, because libvirt at {uri} gave no answer in {LIBVIRT_SECONDS:.0f} s")
    if asked.returncode:
        return Source("simulate", f"simulated nodes, because libvirt at {uri} does not answer: {asked.stderr.strip()}")
    vms = int(asked.stdout)
    if needs_vms and not vms:
        return Source("simulate", f"simulated nodes, because libvirt at {uri} answers but has no VM to wait for")
    return Source("producer", f"the {vms} VMs of {uri}, because libvirt answers there")


def write_settings(folder: Path, ports: Ports, interval: float, uri: str) -> Path:
    """Write the settings file that all services here share, and return it."""
    sections: dict[str, dict[str, str | float]] = {
        "kafka": {"bootstrap_servers": f"{HOST}:{ports.kafka}"},
        "libvirt": {"uri": uri},
        "producer": {"interval_seconds": interval, "journal_folder": str(folder / "journal")},
        "processors": {"listen": f"{HOST}:{ports.processors}"},
        "exporter": {"listen": f"{HOST}:{ports.exporter}"},
        "history": {
            "path": str(folder / "history"),
            "listen": f"{HOST}:{ports.history}",
            "serve_listen": f"{HOST}:{ports.history_serve}",
            "instance": "up",
        },
        "simulate": {"stuck": STUCK_VMS},
    }
    lines = [line for name, keys in sections.items() for line in (f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in keys.items()))]
    file = folder / "virtflow.toml"
    file.write_text("\n".join(["# Written by scripts/up at each start.", *lines, ""]))
    return file


def write_scrape_config(folder: Path, ports: Ports, interval: float) -> Path:
    """Write deploy/prometheus with these addresses and this interval, and return the configuration file."""
    source, target = CHECKOUT / "deploy" / "prometheus", folder / "prometheus"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("rules.yml", "alerts.yml"):
        (target / name).write_text((source / name).read_text())
    text = (source / "prometheus.yml").read_text()
    scrape = f"{max(1, round(interval))}s"
    parts = {9177: ports.exporter, 9178: ports.processors, 9179: ports.history, 9180: ports.history_serve}
    for old, new in (*((f"127.0.0.1:{default}", f"{HOST}:{port}") for default, port in parts.items()), ("15s", scrape)):
        text = text.replace(old, new)
    file = target / "prometheus.yml"
    file.write_text(text)
    return file


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline to run: its folder, ports, interval in seconds and source of VMs."""

    folder: Path
    ports: Ports
    interval: float
    source: Source
    uri: str

    def start(self, supervisor: Supervisor) -> None:
        """Start everything, each part once what it needs is ready. Raises PartError."""
        settings = write_settings(self.folder, self.ports, self.interval, self.uri)
        virtflow = str(Path(sys.executable).parent / "virtflow")
        broker = self._broker()
        supervisor.start(broker)
        supervisor.wait_ready(broker, READY_SECONDS, lambda: _listens(self.ports.kafka))
        supervisor.run_once(Part("topics", [virtflow, "topics", "create", "--config", str(settings)]), READY_SECONDS)
        services = [
            Part("processors", [virtflow, "processors", "--config", str(settings)], self.address("processors") + "/readyz"),
            Part("exporter", [virtflow, "exporter", "--config", str(settings)], self.address("exporter") + "/readyz"),
            Part("history", [virtflow, "history", "write", "--config", str(settings)], self.address("history") + "/readyz"),
            Part(self.source.command, [virtflow, self.source.command, "--config", str(settings)]),
        ]
        readers = [  # of the tables that the writer makes
            Part("history-serve", [virtflow, "history", "serve", "--config", str(settings)], self.address("history_serve") + "/readyz"),
            self._prometheus(),  # the last to start is the first to end: it sees nothing go down
        ]
        for parts in (services, readers):
            for part in parts:
                supervisor.start(part)
            for part in parts:
                if part.ready_url:
                    supervisor.wait_ready(part, READY_SECONDS)

    def address(self, name: str) -> str:
        """Return the URL of a part that answers HTTP."""
        return f"http://{HOST}:{getattr(self.ports, name)}"

    def _broker(self) -> Part:
        command = [str(CHECKOUT / "scripts" / "kafka"), "run", "--dir", str(self.folder / "broker"), "--host", HOST]
        return Part("kafka", [*command, "--port", str(self.ports.kafka), "--controller-port", str(self.ports.kafka_controller)])

    def _prometheus(self) -> Part:
        config = write_scrape_config(self.folder, self.ports, self.interval)
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'prometheus' / 'data'}"]
        command += ["--storage.tsdb.retention.time=7d", f"--web.listen-address={HOST}:{self.ports.prometheus}", "--log.level=warn"]
        return Part("prometheus", command, self.address("prometheus") + "/-/ready")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1.0):
        return True
    return False


def query(prometheus: str, promql: str) -> list[tuple[dict[str, str], float]]:
    """Return the instant vector of a query: labels and value of each element; empty when there is no answer."""
    url = f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": promql})
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10.0) as reply:  # noqa: S310 - http only
        return [(element["metric"], float(element["value"][1])) for element in json.load(reply)["data"]["result"]]
    return []


def wait_for_vms(pipeline: Pipeline, supervisor: Supervisor, started: float) -> bool:
    """Wait until Prometheus has a VM's CPU time that was collected after ``started``, and print what it has; whether it came."""
    prometheus = pipeline.address("prometheus")
    ours = f'instance="{HOST}:{pipeline.ports.exporter}"'  # not what a run before, on other ports, left there
    age = f"vm_sample_age_seconds{{{ours}}}"
    fresh = f"(timestamp({age}) - {age} > {started:.3f})"
    seen: list[tuple[dict[str, str], float]] = []

    def arrived() -> bool:
        supervisor.check()
        seen[:] = query(prometheus, f"vm_cpu_seconds_total{{{ours}}} and on (uuid) {fresh}")
        return bool(seen)

    if not await_true(arrived, SMOKE_SECONDS, pause=0.25):
        print(
            f"No VM's metrics were at Prometheus after {SMOKE_SECONDS:.0f} s; the logs are in {pipeline.folder / 'logs'}", file=sys.stderr
        )
        return False
    series = query(prometheus, f'count({{__name__=~"vm_.+", {ours}}} and on (uuid) {fresh})')
    print(f"Prometheus has {len(seen)} VMs in {int(series[0][1]) if series else 0} series, {time.time() - started:.1f} s after the start:")
    for labels, value in sorted(seen, key=lambda one: one[0].get("name", ""))[:SHOWN_VMS]:
        print(f'  vm_cpu_seconds_total{{name="{labels.get("name", "")}", uuid="{labels["uuid"]}"}} {value:g}')
    return True


def welcome(pipeline: Pipeline) -> str:
    """Return the card that a person sees once everything runs: where to look, what to try, in 80 columns where the folder's name allows it."""
    settings, venv = _short(pipeline.folder / "virtflow.toml"), _short(Path(sys.executable).parent / "activate")
    exporter = pipeline.address("exporter")
    return f"""
  The fleet     {exporter}/
  Prometheus    {pipeline.address("prometheus")}/graph?g0.expr=vm%3Acpu_usage%3Aratio
  VMs           every {pipeline.interval:g} s: {pipeline.source.why}

  Try in a second terminal, in this folder:
    . {venv}
    export VIRTFLOW_CONFIG={settings}
    virtflow top --url {exporter}
    virtflow migrations --watch
    virtflow history query "{EXAMPLE_SQL}"

  Logs are in {_short(pipeline.folder / "logs")} (--logs shows them here). Ctrl-C stops everything.
"""


def _short(path: Path) -> str:
    """The path as it is shortest to type from here."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raises CannotRunError when another pipeline runs on it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            fix = "stop it with Ctrl-C or kill, or choose another folder with VIRTFLOW_DATA"
            raise CannotRunError(f"a pipeline runs on {folder} already (pid {lock.read().strip()}): {fix}") from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the switches, with ``ports`` put together from them."""
    parser = argparse.ArgumentParser(prog="scripts/up", description="A running pipeline with one command; Ctrl-C stops it.")
    parser.add_argument("--smoke", action="store_true", help="wait until a VM's metrics are at Prometheus, print them, and stop")
    parser.add_argument("--reset", action="store_true", help="remove the data folder and end")
    parser.add_argument("--connect", metavar="URI", default="qemu:///system", help="libvirt to ask for VMs (default %(default)s)")
    parser.add_argument(
        "--source", choices=["auto", "libvirt", "simulator"], default="auto", help="where VMs come from (default %(default)s)"
    )
    parser.add_argument("--interval", metavar="SECONDS", type=float, help="sampling and scraping (default 5, with --smoke 1)")
    parser.add_argument("--logs", action="store_true", help="show what the services log, not only where the logs are")
    parser.add_argument("--free-ports", action="store_true", help="let the system choose all ports not given (--smoke does)")
    for name, field in Ports.__dataclass_fields__.items():
        switch = f"--{name.replace('_', '-')}-port"
        parser.add_argument(switch, metavar="NUMBER", type=int, dest=name, help=f"default {field.default}")
    chosen = parser.parse_args(words)
    start = free_ports() if chosen.free_ports or chosen.smoke else Ports()
    chosen.ports = replace(start, **{name: value for name in Ports.__dataclass_fields__ if (value := getattr(chosen, name)) is not None})
    return chosen


def run(chosen: argparse.Namespace) -> int:
    """Run the pipeline as the switches say; returns the exit code."""
    folder, started = data_folder(), time.time()
    with only_one(folder):
        refuse_taken_ports(chosen.ports)
        source = choose_source(chosen.source, chosen.connect, needs_vms=chosen.smoke)
        interval = chosen.interval or (1.0 if chosen.smoke else 5.0)
        pipeline = Pipeline(folder, chosen.ports, interval, source, chosen.connect)
        print(f"Starting with {source.why} ...", flush=True)
        with Supervisor(folder / "logs") as supervisor:
            pipeline.start(supervisor)
            if chosen.smoke:
                return 0 if wait_for_vms(pipeline, supervisor, started) else 1
            print(welcome(pipeline), flush=True)
            for line in supervisor.follow():
                if chosen.logs:
                    print(line, flush=True)
    return 0


def main(words: Sequence[str]) -> int:
    """Run scripts/up; 0 fine, 1 something failed, 2 wrong use."""
    chosen = parse(words)
    try:
        return run(chosen)
    except (CannotRunError, PartError) as error:
        print(f"scripts/up: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Interrupted):
        print("\nStopped.", flush=True)
        return 1 if chosen.smoke else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
