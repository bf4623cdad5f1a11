"""`virtflow top --kafka`: the fleet of a real broker's topics, without an exporter; the same as an exporter's API tells of them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.broker import Broker, free_ports
from tests.support.command import one_line_error, virtflow
from tests.support.exporter_process import ExporterProcess
from tests.support.fleet_samples import busy, described, migration
from tests.support.processors import eventually
from tests.support.terminal import Terminal, wait_for_golden
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import status, uuid
from virtflow.schemas.records import NodeHealth
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES

DATA: Final = Path(__file__).resolve().parents[1] / "golden" / "data"
VMS: Final = 120
STUCK, MOVING = 3, 4
PAUSE_SECONDS: Final = 0.5
VARIES: Final = ("collected", "sample_age_seconds", "monitor_age_seconds", "rate_seconds", "history")
"""What of a VM differs from one look to the next: the fleet's rates are constant, but for counters being whole numbers."""


class Fleet(threading.Thread):
    """120 VMs on three nodes whose samples come as long as it is entered; one is stuck, one migrates, a node is down."""

    def __init__(self, brokers: str) -> None:
        """Makes the topics, with the first round in them."""
        super().__init__(daemon=True)
        self.writer = TopicWriter(brokers)
        self._ended = threading.Event()
        self._round = 0
        self.writer.write(INVENTORY, *(described(number) for number in range(VMS)))
        self.writer.write(MIGRATIONS, migration(MOVING))
        self.one_round()

    def one_round(self) -> None:
        """Ten seconds of the fleet's time, in one."""
        number = self._round
        self.writer.write(NODES, *(status(f"node-{node}", number) for node in (1, 2, 3)))
        self.writer.write(NODES, status("node-9", number, health=NodeHealth(up=0, hung_calls=1)))
        self.writer.write(METRICS, *(busy(vm, number, responsive=0 if vm == STUCK else 1) for vm in range(VMS)))
        self._round += 1

    def run(self) -> None:
        """Rounds until the end."""
        while not self._ended.wait(PAUSE_SECONDS):
            self.one_round()

    def close(self) -> None:
        """No round any more."""
        self._ended.set()
        self.join(30.0)


@pytest.fixture(scope="module")
def fleet(broker: Broker) -> Iterator[Fleet]:
    fleet = Fleet(broker.address)
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def words(broker: Broker, fleet: Fleet) -> tuple[str, ...]:
    """The options that name the fleet's topics."""
    return ("--kafka", "--bootstrap-servers", broker.address, "--topic-prefix", fleet.writer.prefix)


def test_from_the_fleet_to_a_disk_and_a_migration_to_its_end(words: tuple[str, ...], fleet: Fleet) -> None:
    with Terminal("top", *words, "--refresh", "0.5") as top:
        screen = top.wait_for(lambda text: "120 VMs" in text and "node-3" in text, "nodes")
        assert re.search(r"^ D node-9 +no libvirt", screen, re.MULTILINE)
        top.press("vf")
        top.wait_for(lambda text: re.search(rf"^>S vm-{STUCK:05d} +running +0.15", text, re.MULTILINE) is not None, "the stuck VM's rates")
        top.press("\r")
        top.wait_for(lambda text: "STUCK" in text and "disk vda" in text, "the stuck VM")
        top.press("jj\r")
        top.wait_for(lambda text: "disk vda of VM vm-00003" in text and "capacity" in text, "its disk")
        top.press("\x1b")
        top.press("m")
        top.wait_for(lambda text: re.search(r"vm-00004 +running +25%", text) is not None, "it runs")
        fleet.writer.write(MIGRATIONS, migration(MOVING, "completed", progress_ratio=1.0, revision=2))
        top.wait_for(lambda text: re.search(r"vm-00004 +completed +100%", text) is not None, "it has ended")
        fleet.writer.write(MIGRATIONS, migration(MOVING, revision=3))
        top.press("q")
        assert top.end() == 0
        assert b"Traceback" not in top.sent


def test_the_screen_is_the_expected_text(words: tuple[str, ...]) -> None:
    """Once the rates of all VMs are known."""
    with Terminal("top", *words, "--sort", "-write", "--refresh", "0.5") as top:
        wait_for_golden(
            DATA / "top-kafka.txt", top.wait_for, lambda text: "vm-00119" in text and "enter open" in text and " - " not in text
        )


def constant(answers: dict[str, Any]) -> dict[str, Any]:
    """What of the answers does not depend on when they were given."""
    fleet = {name: answers["fleet"][name] for name in ("vms", "states", "stuck", "migrating", "conflicts", "vcpus", "nodes", "cpu_cores")}
    return {"fleet": fleet, "vms": [{key: value for key, value in vm.items() if key not in VARIES} for vm in answers["vms"]["items"]]}


def test_once_is_what_an_exporter_tells(words: tuple[str, ...], fleet: Fleet, broker: Broker, tmp_path: Path) -> None:
    """Every value of every VM, rates included."""
    asked = "vms?sort=name&limit=1000"
    with ExporterProcess(tmp_path, broker.address, fleet.writer.prefix) as exporter:
        exporter.wait_until_ready()

        def told(path: str) -> Any:  # noqa: ANN401, JSON
            return json.loads(exporter.get(f"/api/v1/{path}"))

        eventually("all rates", lambda: all(vm["cpu_cores"] is not None for vm in told(asked)["items"]))
        done = virtflow("top", *words, "--once", "--json", "--sort", "name", "--limit", "1000")
        assert (done.returncode, done.stderr) == (0, "")
        here = constant(json.loads(done.stdout))
        there = constant({"fleet": told("fleet"), "vms": told(asked)})
    assert here["fleet"]["vms"] == len(here["vms"]) == VMS
    assert here["vms"][STUCK]["flags"] == ["stuck"]
    for vm, other in zip(here["vms"], there["vms"], strict=True):
        assert vm == {key: pytest.approx(value, rel=1e-3) if isinstance(value, float) else value for key, value in other.items()}
    assert here["fleet"].pop("cpu_cores") == pytest.approx(there["fleet"].pop("cpu_cores"))
    assert here["fleet"] == there["fleet"]
    assert here["vms"][119]["cpu_cores"] == pytest.approx(1.95)
    assert here["vms"][119]["uuid"] == uuid(119)


def test_once_as_a_table(words: tuple[str, ...]) -> None:
    done = virtflow("top", *words, "--once", "--sort", "-cpu", "--limit", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("120 VMs  1 stuck  1 migrating")
    assert [line.split()[0:3] for line in lines[4:]] == [[f"vm-{vm:05d}", "running", "1.95"] for vm in (119, 79, 39)]


def test_a_filter_that_is_wrong_is_one_line(words: tuple[str, ...]) -> None:
    assert "sort='bogus' is not allowed; allowed: name, node" in one_line_error(virtflow("top", *words, "--once", "--sort", "bogus"), 1)


def test_what_keeps_it_from_reading_is_one_line(broker: Broker) -> None:
    """A broker that is away, and topics that are missing, each with what to do."""
    (port,) = free_ports(1)
    away = one_line_error(virtflow("top", "--once", "--kafka", "--bootstrap-servers", f"127.0.0.1:{port}"), 1)
    assert "--bootstrap-servers" in away
    missing = one_line_error(virtflow("top", "--once", "--kafka", "--bootstrap-servers", broker.address, "--topic-prefix", "nobody."), 1)
    assert "nobody.vm." in missing
    assert "virtflow topics create" in missing


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--kafka", "--libvirt"), "give one of them"),
        (("--kafka", "--url", "http://127.0.0.1:9177"), "give one of them"),
        (("--bootstrap-servers", "k:9092"), "--bootstrap-servers needs --kafka"),
        (("--kafka", "--interval", "2"), "--interval needs --libvirt"),
        (("--config", "/x.toml"), "--config needs --kafka or --libvirt"),
    ],
)
def test_options_that_do_not_belong_together(given: tuple[str, ...], why: str) -> None:
    done = virtflow("top", "--once", *given)
    assert done.returncode == 2
    assert why in done.stderr
