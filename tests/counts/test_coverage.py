"""The modules that join the producer to libvirt are run without QEMU: of each at least 85 % of the lines."""

from __future__ import annotations

import pytest

from tools.line_coverage import FLOOR, HYPERVISOR_MODULES, HYPERVISOR_TESTS, Covered, measure


@pytest.fixture(scope="module")
def report() -> list[Covered]:
    """Of every module that meets libvirt; ``scripts/coverage`` measures those that meet Kafka as well."""
    return measure(HYPERVISOR_TESTS, HYPERVISOR_MODULES)


def test_the_unit_tests_run_every_module_that_meets_libvirt(report: list[Covered]) -> None:
    assert FLOOR == 85.0
    low = [str(covered) for covered in report if not covered.fine]
    assert not low, "\n".join(low)


@pytest.mark.parametrize(
    "path",
    [
        "producer/sampler.py",
        "producer/sampling.py",
        "producer/hung_calls/executor.py",
        "producer/hung_calls/job_poller.py",
        "producer/hung_calls/reconnecting.py",
        "producer/daemons/connections.py",
        "producer/daemons/sampler.py",
        "producer/hypervisor/connection.py",
        "producer/agent/supervisor.py",
    ],
)
def test_what_meets_libvirt_is_among_them(report: list[Covered], path: str) -> None:
    """Sampler, monitor tier, job poller, connections, daemons and the agents' supervisor."""
    assert [covered.percent >= 85.0 for covered in report if covered.path == path] == [True]
