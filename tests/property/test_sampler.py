"""A whole sampler on an in-memory libvirt under random mishaps: at the end it serves every VM, holds no call, and is silent."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import pytest

from tests.support.memory_libvirt import BOOKWORM, TRIXIE, Vm
from tests.support.memory_libvirt.domain import MemoryDomain
from tests.support.simulated_host import SimulatedHost
from tests.support.simulated_rounds import each_made, flagged, whole
from virtflow.producer.hung_calls.budget import Kind

VMS = 12
MISHAPS = 25
CALM_ROUNDS = 40
LINES_A_ROUND = 8
"""Of the log, at most: four connections can be lost, and opened in vain, in one round."""
SETTINGS: dict[str, Any] = {"inventory_seconds": 20.0, "probe_maximum_seconds": 30.0}
"""VMs' XML is due all the time, and where nothing can be seen, a VM that has recovered is asked within the calm rounds."""
SEEDS = range(8)


@pytest.fixture(params=[BOOKWORM, TRIXIE], ids=["9.0", "11.3"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SimulatedHost]]:
    yield from each_made(SimulatedHost, monkeypatch, request.param)


class Mishaps:
    """What befalls the VMs, the daemon and the producer of a host."""

    def __init__(self, host: SimulatedHost, rng: random.Random, limit: int) -> None:
        """Everything runs."""
        self._host, self._rng, self._limit, self._paused = host, rng, limit, False

    def one(self, number: int) -> None:
        """Something happens, or nothing where it can't."""
        daemon, uuid = self._host.daemon, self._rng.choice(self._host.uuids)
        vm = daemon.vms.get(uuid)
        match self._rng.choice(["freeze", "freeze", "thaw", "thaw", "destroy", "start", "away", "back", "restart", "pause", "kill"]):
            case "freeze" if vm and vm.active:
                daemon.freeze(uuid)
            case "thaw" if vm:
                daemon.thaw(uuid)
            case "destroy" | "away" as what if vm and vm.active:
                daemon.destroy(uuid)
                if what == "away":
                    daemon.undefine(uuid)
            case "start" if vm and not vm.active:
                daemon.start(uuid)
            case "back" if not vm:
                daemon.add(Vm(f"again-{number}", uuid))
            case "restart" if not self._paused:
                daemon.restart()
            case "pause":
                (daemon.resume if self._paused else daemon.pause)()
                self._paused = not self._paused
            case "kill" if self._rng.random() < 1 / 3:
                self._host.kill()
                self._host.start(limit=self._limit, **SETTINGS)

    def over(self) -> None:
        """All is well again."""
        daemon = self._host.daemon
        if self._paused:
            daemon.resume()
        for uuid in self._host.uuids:
            if (vm := daemon.vms.get(uuid)) is None:
                daemon.add(Vm("back", uuid))
                continue
            daemon.thaw(uuid)
            if not vm.active:
                daemon.start(uuid)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_mishaps_all_is_as_before(
    make: Callable[..., SimulatedHost], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """VMs hang, end, go away and come back under other names, the daemon hangs and restarts, the producer is killed."""
    caplog.set_level("INFO")
    rng = random.Random(seed)  # noqa: S311, a test's
    if seed % 3 == 0:  # libvirt does not say who is occupied
        monkeypatch.setattr(MemoryDomain, "controlInfo", lambda _vm, _flags=0: [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0])
    limit = rng.choice([1, 2, 3, 5])
    host = make(vms=VMS, processes=seed % 2 == 0).start(limit=limit, **SETTINGS)
    host.rounds(3)
    mishaps = Mishaps(host, rng, limit)
    for number in range(MISHAPS):
        mishaps.one(number)
        caplog.clear()
        rounds = rng.randrange(1, 5)
        host.rounds(rounds)
        assert len(caplog.records) <= LINES_A_ROUND * rounds
        beyond = 1 + len(host.budget.foreign_vms())  # one opening of the connection that lists, and what an earlier run has left
        assert host.budget.hung <= limit + beyond
    mishaps.over()
    found = host.rounds(CALM_ROUNDS)[-1]
    assert whole(found) == set(host.uuids)
    assert flagged(found) == set()
    assert (host.budget.hung, found.hung_calls.vms_skipped, found.hung_calls.vms_not_probed) == (0, 0, 0)
    assert host.budget.outstanding <= 1, "a search for jobs may be under way"
    assert not any(host.budget.hangs_in(uuid, kind) for uuid in host.uuids for kind in Kind)
    caplog.clear()
    host.rounds(10)
    assert not caplog.records
