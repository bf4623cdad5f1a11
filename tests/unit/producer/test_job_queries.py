"""What the queries for jobs ask of libvirt and tell of it; its part is played by stand-ins."""

from __future__ import annotations

from collections.abc import Mapping

import libvirt
import pytest

from tests.support.job_answers import MOMENT, NONE, OUT, A, B, C, Refused
from virtflow.producer.hypervisor.queries import Position, find_jobs, poll_job
from virtflow.producer.types import Polled


class SlowDaemon:
    """A connection and a VM in one, whose calls take time on a clock of its own."""

    def __init__(self, statistics: dict[str, int] | libvirt.libvirtError) -> None:
        """It tells these statistics, or refuses to."""
        self.now, self.statistics = MOMENT, statistics

    def time(self) -> float:
        return self.now

    def lookupByUUIDString(self, _uuid: str) -> SlowDaemon:  # noqa: N802, libvirt's name
        self.now += 10.0
        return self

    def jobStats(self) -> dict[str, int]:  # noqa: N802, libvirt's name
        self.now += 2.0
        if isinstance(self.statistics, libvirt.libvirtError):
            raise self.statistics
        return self.statistics

    def state(self) -> tuple[int, int]:
        self.now += 30.0
        return 3, 1

    @staticmethod
    def name() -> str:
        return "web-1"


@pytest.mark.parametrize(("statistics", "state"), [(OUT, (-1, -1)), (NONE, (3, 1))])
def test_numbers_are_of_the_moment_they_were_asked_for(
    statistics: dict[str, int], state: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the whole poll's: looking the VM up first took ten seconds here."""
    daemon = SlowDaemon(statistics)
    monkeypatch.setattr("virtflow.producer.hypervisor.queries.time", daemon)
    assert poll_job(A)(daemon) == Polled("web-1", statistics, *state, moment=MOMENT + 11.0)


@pytest.mark.parametrize("code", [libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED])
def test_the_state_is_told_where_the_jobs_statistics_are_refused(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VM that still runs at its source was not migrated: without its state the result would be unknown."""
    daemon = SlowDaemon(Refused(code))
    monkeypatch.setattr("virtflow.producer.hypervisor.queries.time", daemon)
    assert poll_job(A)(daemon) == Polled("web-1", {}, 3, 1, moment=MOMENT + 11.0)


def test_another_refusal_is_the_polls_own() -> None:
    with pytest.raises(Refused):
        poll_job(A)(SlowDaemon(Refused(libvirt.VIR_ERR_OPERATION_TIMEOUT)))


class Daemon:
    """A connection with VMs whose jobs, or refusals, are given; ``alive`` says whether it stands."""

    def __init__(self, jobs: Mapping[str, Mapping[str, int] | Refused], *, alive: bool = True) -> None:
        """With these VMs."""
        self.vms = {uuid: Domain(uuid, job) for uuid, job in jobs.items()}
        self.alive = alive

    def lookupByUUIDString(self, uuid: str) -> Domain:  # noqa: N802, libvirt's name
        return self.vms[uuid]

    def isAlive(self) -> bool:  # noqa: N802, libvirt's name
        return self.alive


class Domain:
    """One of its VMs."""

    def __init__(self, uuid: str, job: Mapping[str, int] | Refused) -> None:
        """With this job."""
        self.uuid, self.job = uuid, job

    def jobStats(self) -> Mapping[str, int]:  # noqa: N802, libvirt's name
        if isinstance(self.job, Refused):
            raise self.job
        return self.job

    def name(self) -> str:
        return f"vm-{self.uuid}"


def test_a_search_returns_the_jobs_and_says_where_it_is() -> None:
    """A VM that refuses costs the others nothing."""
    position = Position(0.0)
    daemon = Daemon({A: Refused(libvirt.VIR_ERR_OPERATION_INVALID), B: OUT, C: NONE})
    assert [(uuid, polled.name, polled.statistics) for uuid, polled in find_jobs([A, B, C], position)(daemon)] == [(B, f"vm-{B}", OUT)]
    assert position.at[0] == C


def test_a_search_ends_with_its_connection() -> None:
    with pytest.raises(Refused):
        find_jobs([A], Position(0.0))(Daemon({A: Refused(libvirt.VIR_ERR_INTERNAL_ERROR)}, alive=False))
