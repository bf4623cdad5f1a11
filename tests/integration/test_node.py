"""``virtflow node`` and ``virtflow snapshot`` on a real hypervisor: libvirt in, text out, no bus."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.broker import free_ports
from tests.support.command import PROGRAM, environment, one_line_error, virtflow
from tests.support.lab import Guest, GuestSpec, Lab, Node, await_true
from tests.support.prometheus import check_metrics

DEADLINE = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    """A ``virtflow node`` that runs: its /metrics, and its end."""

    process: subprocess.Popen[str]
    address: str

    def metrics(self) -> str:
        """The exposition now; "" while nothing is served."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except urllib.error.URLError:
            return ""

    def await_line(self, pattern: str, *, there: bool = True) -> None:
        """Waits until a line matches, or none does any more."""
        await_true(lambda: bool(text := self.metrics()) and bool(re.search(pattern, text, re.MULTILINE)) is there, DEADLINE, pattern)

    def stop(self) -> tuple[int, float]:
        """Sends TERM; exit code and seconds until it was gone."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE), time.monotonic() - begin


@contextmanager
def running(uri: str, *words: str) -> Iterator[Running]:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [str(PROGRAM), "node", "--connect", uri, "--listen", address, "--interval", "0.5", "--node", "alone", *words]
    process = subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield Running(process, address)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def hypervisor() -> Iterator[Node]:
    with Lab(nodes=1) as lab:
        yield lab.nodes[0]


@pytest.fixture(scope="module")
def guest(hypervisor: Node) -> Guest:
    return hypervisor.start_guest(GuestSpec("alone-1"))


def test_metrics_of_this_host(hypervisor: Node, guest: Guest) -> None:
    """The guest's CPU time lies between what virsh says before and after; promtool is content; TERM ends it at once with exit code 0."""
    with running(hypervisor.uri) as node:
        node.await_line(f'^vm_cpu_seconds_total{{uuid="{guest.uuid}",name="alone-1"}} ')
        before = int(hypervisor.domstats(guest, "cpu-total")["cpu.time"]) / 1e9
        time_then = f'^virtflow_node_rounds_total{{node="alone"}} {rounds(node) + 3}$'
        node.await_line(time_then)
        text = node.metrics()
        after = int(hypervisor.domstats(guest, "cpu-total")["cpu.time"]) / 1e9
        found = re.search(f'^vm_cpu_seconds_total{{uuid="{guest.uuid}".*}} (.+)$', text, re.MULTILINE)
        assert found is not None
        assert before <= float(found[1]) <= after
        check_metrics(text)
        assert re.search(f'^vm_info{{uuid="{guest.uuid}",name="alone-1",node="alone",.*machine_type="pc-q35', text, re.MULTILINE)
        code, seconds = node.stop()
        assert code == 0
        assert seconds < 5


def rounds(node: Running) -> int:
    found = re.search(r'^virtflow_node_rounds_total{node="alone"} (\d+)$', node.metrics(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_libvirt_away_at_start(tmp_path: Path, hypervisor: Node, guest: Guest) -> None:
    """It serves ``virtflow_node_up`` 0 and goes on; once libvirt is there its VMs are."""
    link = tmp_path / "libvirt-sock"
    with running(f"qemu+unix:///system?socket={link}") as node:
        node.await_line('^virtflow_node_up{node="alone"} 0$')
        assert "vm_state{" not in node.metrics()
        link.symlink_to(hypervisor.socket)
        node.await_line('^virtflow_node_up{node="alone"} 1$')
        node.await_line(f'^vm_state{{uuid="{guest.uuid}"')
        assert node.stop()[0] == 0


def test_a_vm_that_is_gone_vanishes(hypervisor: Node) -> None:
    """Its series are there within a few rounds of its start and gone three intervals after its end; the others stay."""
    with running(hypervisor.uri) as node:
        (mayfly,) = hypervisor.load_paused(1, "mayfly")
        node.await_line(f'^vm_state{{uuid="{mayfly.uuid}"')
        hypervisor.delete(mayfly)
        node.await_line(f'^vm_state{{uuid="{mayfly.uuid}"', there=False)
        node.await_line('^virtflow_node_up{node="alone"} 1$')


def test_a_stuck_vm_keeps_its_safe_values(hypervisor: Node, guest: Guest) -> None:
    """A stopped QEMU costs its own monitor values only, and ends neither the service nor its stop."""
    with running(hypervisor.uri) as node:
        node.await_line(f'^vm_memory_rss_bytes{{uuid="{guest.uuid}"')
        hypervisor.freeze(guest)
        try:
            node.await_line(f'^vm_memory_rss_bytes{{uuid="{guest.uuid}"', there=False)
            node.await_line(f'^vm_state{{uuid="{guest.uuid}"')
            code, seconds = node.stop()
        finally:
            hypervisor.thaw(guest)
    assert code == 0
    assert seconds < 10


def test_port_taken(hypervisor: Node) -> None:
    """One line with the address and the fix, before libvirt is asked for anything."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = virtflow("node", "--connect", hypervisor.uri, "--listen", address)
    line = one_line_error(done, 1)
    assert address in line
    assert "--listen" in line


def test_no_bus_is_loaded() -> None:
    """One host alone needs neither a Kafka client nor the stream processor."""
    code = (
        "import sys\nfrom virtflow.cli.host import node\nimport virtflow.producer.service, virtflow.exporter.service\n"
        "import virtflow.processors.normalise, virtflow.processors.inventory\n"
        "print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([str(PROGRAM.with_name("python")), "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert not {"confluent_kafka", "faust", "aiokafka", "fastavro"} & set(done.stdout.split())


def test_snapshot_and_its_recording_say_the_same(hypervisor: Node, guest: Guest, tmp_path: Path) -> None:
    """What ``--record`` wrote replays to the values that were shown; a second sample is appended and is then the newest."""
    file = tmp_path / "recording.jsonl"
    words = ("snapshot", "--connect", hypervisor.uri, "--record", str(file), "--format", "json")
    shown = json.loads(virtflow(*words).stdout)
    replayed = json.loads(virtflow("snapshot", "--replay", str(file), "--format", "json").stdout)
    (live,), (again,) = ([vm for vm in told["vms"] if vm["uuid"] == guest.uuid] for told in (shown, replayed))
    assert live.pop("inventory")["machine_type"].startswith("pc-q35")
    assert again == live | {"collected": pytest.approx(live["collected"], abs=0.001)}
    second = json.loads(virtflow(*words).stdout)
    newest = json.loads(virtflow("snapshot", "--replay", str(file), "--format", "json").stdout)
    assert newest["collected"] == pytest.approx(second["collected"], abs=0.001)
    assert newest["collected"] > shown["collected"]


def test_snapshot_of_a_stuck_vm_ends(hypervisor: Node, guest: Guest) -> None:
    hypervisor.freeze(guest)
    try:
        done = virtflow("snapshot", "--connect", hypervisor.uri, seconds=30)
    finally:
        hypervisor.thaw(guest)
    assert done.returncode == 0
    assert re.search(r"^alone-1 +running, does not answer", done.stdout, re.MULTILINE)


def test_snapshot_that_cannot_be_recorded(hypervisor: Node, guest: Guest) -> None:
    del guest
    line = one_line_error(virtflow("snapshot", "--connect", hypervisor.uri, "--record", "/nowhere/recording.jsonl"), 1)
    assert "recording /nowhere/recording.jsonl: No such file or directory" in line
