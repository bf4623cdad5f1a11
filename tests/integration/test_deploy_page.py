"""docs/deploy.md as it stands: a pipeline with scripts/up, the packages, and services from a clone, each on a bare Debian system.

Its other blocks are run in tests/integration/test_secure_page.py and test_install_fleet.py. With ``--long`` alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.debian_packages import RELEASES, Release
from scripts.debian_root import with_apt
from scripts.embedded_kafka import data_folder
from tests.support.broker import Broker
from tests.support.debian_host import DebianHost, SystemdHost, built_packages, in_host
from tests.support.doc_blocks import ROOT, block
from tests.support.lab_network import Network
from tests.support.processors import Bus, eventually
from virtflow.schemas.records import NodeSnapshot
from virtflow.schemas.topics import SNAPSHOTS

CLONE = "root/src"
NEEDS_NETWORK = ("apt-get ", "/opt/virtflow/bin/pip ")
"""How lines of the page begin that fetch something."""
AUTHORITIES = Path("/usr/local/share/ca-certificates")
MACHINE = 254
"""This machine's number in a lab's network."""
UP_SECONDS = 300.0


@pytest.fixture(params=list(RELEASES))
def release(request: pytest.FixtureRequest) -> Release:
    """Each release that the page names."""
    return RELEASES[str(request.param)]


@pytest.fixture
def host(release: Release, tmp_path: Path) -> DebianHost:
    """A bare system with a clone, whose apt asks nothing and which trusts whom this machine trusts."""
    host = DebianHost(release.name, tmp_path / release.name)
    host.write("etc/apt/apt.conf.d/98yes", 'APT::Get::Assume-Yes "true";\n')
    if AUTHORITIES.is_dir():
        shutil.copytree(AUTHORITIES, host.root / AUTHORITIES.relative_to("/"), dirs_exist_ok=True)
    subprocess.run(["git", "clone", "-q", ROOT, host.root / CLONE], check=True)
    return host


def commands(words: str) -> list[str]:
    """The lines of a block, without what they say to readers."""
    return [line.partition(" #")[0].rstrip() for line in block(words).splitlines()]


def fetched(host: DebianHost, command: str, folder: str = CLONE) -> None:
    """Runs commands in the system with the network; fails where one fails."""
    with_apt(host.root, f"cd /{folder} && {command}")


def test_the_packages_are_built_and_installed(host: DebianHost, release: Release) -> None:
    """By the page's own words: apt brings what they need, and each program starts."""
    build, *installing = commands("sh install")
    assert build == commands("sh packages")[0]
    (host.root / CLONE / "dist").mkdir()
    for package in built_packages(release.name).values():
        shutil.copy(package, host.root / CLONE / "dist")
    assert len(installing) == 2
    for line in installing:
        fetched(host, line.replace("deb12", f"deb{release.number}"))
    assert host.run("dpkg-query --show --showformat '${db:Status-Status} ' virtflow-producer virtflow-centre").split() == ["installed"] * 2
    assert host.run("virtflow --version; /usr/lib/virtflow/producer/bin/virtflow --version").splitlines() == ["virtflow 0.1.0"] * 2
    assert "vm_state" in host.run("virtflow snapshot --connect test:///default --format prom")


@contextmanager
def booted(host: DebianHost, folder: Path) -> Iterator[tuple[SystemdHost, Bus]]:
    """The system with its own systemd, on a network with a broker that has all topics."""
    network = Network()
    try:
        with SystemdHost(host) as systemd, Broker(folder / "broker", host=network.address(MACHINE)) as broker:
            network.connect(systemd.pid)
            bus = Bus(broker)
            bus.create_topics()
            yield systemd, bus
    finally:
        network.close()


def test_a_service_from_a_clone(host: DebianHost, tmp_path: Path) -> None:
    """Line after line, until the hypervisor's VM is in Kafka; only what the page says to edit is written here."""
    lines = commands("sh from-clone")
    first = max(number for number, line in enumerate(lines) if line.startswith(NEEDS_NETWORK)) + 1
    fetched(host, " && ".join(["apt-get -qq install systemd", *lines[:first]]))
    with booted(host, tmp_path) as (systemd, bus):
        for line in lines[first:]:
            systemd.run(f"cd /{CLONE} && {line}")
            if "config sample" in line:
                assert not re.search(r"^\w+ =", host.text("etc/virtflow/producer.toml"), re.MULTILINE)
                host.write("etc/virtflow/producer.toml", settings(bus))
        unit = "virtflow-producer"
        assert systemd.run(f"systemctl is-enabled {unit}; systemctl is-active {unit}").split() == ["enabled", "active"]
        assert systemd.run(f"stat -c %U /proc/{systemd.property(unit, 'MainPID')}").strip() == unit
        assert systemd.run(f"systemd-analyze verify --man=no /etc/systemd/system/{unit}.service 2>&1") == ""
        eventually("the VM in Kafka", lambda: {vm.name for one in bus.records(SNAPSHOTS, NodeSnapshot) for vm in one.vms} == {"test"}, 60.0)
        systemd.run(f"systemctl stop {unit}")
        assert systemd.property(unit, "Result") == "success"


def settings(bus: Bus) -> str:
    """The broker of the test, and a libvirt that needs no hypervisor."""
    kafka = f'[kafka]\nbootstrap_servers = "{bus.broker.address}"\n[topics]\nprefix = "{bus.prefix}"\n'
    return f'{kafka}[libvirt]\nuri = "test:///default"\n[producer]\ninterval_seconds = 1\n'


UNTIL_IT_RUNS = """set -m
{up} > /root/up.log 2>&1 &
tail -n +1 -F --pid=$! /root/up.log 2> /dev/null | grep -q -m 1 "Ctrl-C stops everything"
kill -INT -- -$!
wait $!
"""
"""A terminal's ways: whatever the shell starts has a group of its own, which Ctrl-C ends."""


def test_a_pipeline_from_a_clone(host: DebianHost) -> None:
    """Everything that is missing is installed; then each line of the page: it runs until Ctrl-C, is looked at, and is removed."""
    up, smoke, reset = commands("sh up")
    data = host.root / CLONE / ".virtflow"
    shutil.copytree(data_folder() / "kafka", data / "kafka")  # Maven is asked in the tests' own preparation
    fetched(host, "scripts/prepare run")
    assert run(host, UNTIL_IT_RUNS.format(up=up)).returncode == 0, host.text("root/up.log")
    told = host.text("root/up.log")
    assert "Starting with simulated nodes" in told
    assert told.endswith("\nStopped.\n")
    done = run(host, smoke)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'^  vm_cpu_seconds_total\{name="[^"]+", uuid="[^"]+"\} \d', done.stdout, re.MULTILINE)
    assert run(host, reset).returncode == 0
    assert not data.exists()


def run(host: DebianHost, script: str) -> subprocess.CompletedProcess[str]:
    """A script that is typed in the clone, without a network but loopback, to its end."""
    words = in_host(host.root, f"cd /{CLONE} && bash /root/typed")
    host.write("root/typed", script)
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=UP_SECONDS, check=False)
