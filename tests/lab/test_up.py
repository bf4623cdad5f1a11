"""scripts/up against a real libvirt: its VMs reach Prometheus, and where libvirt hangs simulated nodes stand in and say so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.embedded_kafka import data_folder
from tests.support.command import environment
from tests.support.lab import Lab, Node

ROOT = Path(__file__).resolve().parents[2]
SMOKE_SECONDS = 240.0


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """One hypervisor with two VMs."""
    with Lab(nodes=1) as lab:
        (node,) = lab.nodes
        node.start_paused(["first", "second"])
        yield node


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of its own, with the broker's jars that are there already."""
    (tmp_path / "kafka").symlink_to(data_folder() / "kafka")
    return tmp_path


def up_smoke(data: Path, uri: str) -> subprocess.CompletedProcess[str]:
    """What `scripts/up --smoke` runs once everything is installed, for this libvirt."""
    command = [sys.executable, "-m", "scripts.up_pipeline", "--smoke", "--connect", uri]
    settings = environment({"VIRTFLOW_DATA": str(data), "PATH": os.environ["PATH"]})
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False, timeout=SMOKE_SECONDS)


def test_libvirts_own_vms_reach_prometheus(node: Node, data: Path) -> None:
    """Where libvirt answers its VMs are what is seen, by name."""
    done = up_smoke(data, node.socket_uri)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the 2 VMs of" in done.stdout
    assert "Prometheus has 2 VMs" in done.stdout
    assert 'name="first"' in done.stdout
    assert 'name="second"' in done.stdout


def test_a_libvirt_that_hangs_is_not_waited_for(node: Node, data: Path) -> None:
    """A stopped libvirtd never answers: simulated nodes come instead, with the reason."""
    node.pause_libvirtd()
    try:
        done = up_smoke(data, node.socket_uri)
    finally:
        node.resume_libvirtd()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "simulated nodes, because libvirt at" in done.stdout
    assert "gave no answer in 10 s" in done.stdout
