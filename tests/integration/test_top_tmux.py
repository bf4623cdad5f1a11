"""`virtflow top` in a real tmux, in a small window and a wide one: to a disk, to the stuck VM, and with a migration to its end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.fleet_samples import busy, fleet_records, lasting, migration
from tests.support.processors import eventually
from tests.support.served_exporter import exporter_of, get, served
from tests.support.terminal import wait_for_golden
from tests.support.tmux import Tmux
from tests.support.vm_samples import status
from virtflow.exporter.service import Exporter

VMS: Final = 120
STUCK, MOVING = 3, 4
DATA: Final = Path(__file__).resolve().parents[1] / "golden" / "data"


@pytest.fixture
def fleet() -> Iterator[tuple[Exporter, str]]:
    """120 VMs on three nodes that stay for an hour; one is stuck, one migrates."""
    exporter = exporter_of()
    with served(exporter) as url:
        exporter.take(lasting(fleet_records(VMS, rounds=1)))
        eventually("all VMs", lambda: json.loads(get(f"{url}/api/v1/fleet")[2])["vms"] == VMS)
        second = [busy(number, 1, responsive=0 if number == STUCK else 1) for number in range(VMS)]
        exporter.take(lasting([*second, *(status(f"node-{node}", 1) for node in (1, 2, 3)), migration(MOVING)]))
        eventually("rates", lambda: json.loads(get(f"{url}/api/v1/fleet")[2])["stuck"] == 1)
        yield exporter, url


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
def test_a_disk_the_stuck_vm_and_a_migration(fleet: tuple[Exporter, str], columns: int, lines: int, tmp_path: Path) -> None:
    exporter, url = fleet
    with Tmux(tmp_path, columns, lines, "top", "--url", url, "--refresh", "0.5") as tmux:
        tmux.wait_for(lambda text: "120 VMs  1 stuck  1 migrating" in text and "node-3" in text, "nodes")
        tmux.press("Down", "Enter")
        tmux.wait_for(lambda text: "VMs of node-2" in text and "vm-00079" in text, "its VMs")
        wait_for_golden(DATA / f"top-{columns}x{lines}.txt", tmux.wait_for, lambda text: "enter open" in text)
        tmux.press("PageDown", "Enter")
        tmux.wait_for(lambda text: "Devices" in text and "disk vda" in text, "a VM")
        tmux.press("Down", "Down", "Enter")
        tmux.wait_for(lambda text: re.search(r"disk vda of VM vm-000\d\d", text) is not None and "capacity" in text, "its disk")
        tmux.press("Escape")
        tmux.wait_for(lambda text: "Devices" in text, "back to the VM")
        tmux.press("v", "f")
        tmux.wait_for(lambda text: "1 of 120" in text and re.search(r"^>S vm-00003", text, re.MULTILINE) is not None, "the stuck VM")
        tmux.press("m")
        tmux.wait_for(lambda text: re.search(r"vm-00004 +running +25%", text) is not None, "it runs")
        exporter.take([migration(MOVING, progress_ratio=0.75, revision=2)])
        tmux.wait_for(lambda text: re.search(r"vm-00004 +running +75%", text) is not None, "it goes on")
        exporter.take(
            lasting([migration(MOVING, "completed", progress_ratio=1.0, revision=3), busy(MOVING, 1, node="node-2", boot_id="2")])
        )
        tmux.wait_for(lambda text: re.search(r"vm-00004 +completed +100%", text) is not None, "it has ended")
        tmux.press("Enter")
        tmux.wait_for(lambda text: "VM vm-00004" in text and "node node-2" in text, "its VM, at its new place")
        tmux.press("q")
        assert tmux.end() == 0
