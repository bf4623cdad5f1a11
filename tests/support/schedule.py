"""Which worker process runs which test files, and in what order.

A file's tests share fixtures that are expensive to make (hypervisors, a broker), so one worker runs them all. The longest files start
first, so that no worker ends long after the others.

Hypervisors must sample on time, so that only some workers run files with hypervisors: as many as VIRTFLOW_TEST_HYPERVISORS says, all where
it says nothing. Beside them the other workers run everything else, at a lower priority. Files whose guests compute run on one worker, one
after another: they would slow each other down, while the other workers mostly wait.
"""

from __future__ import annotations

import os
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SECONDS: Final[dict[str, int]] = {
    "tests/lab/test_stuck_vms.py": 575,
    "tests/faults/test_17_hostile_guest_agent.py": 280,
    "tests/lab/test_libvirt_contract.py": 265,
    "tests/faults/test_04_many_vms_stuck.py": 235,
    "tests/lab/test_guest_process.py": 195,
    "tests/integration/test_remote_read_equal.py": 165,
    "tests/integration/test_history_promql.py": 130,
    "tests/integration/test_dashboards.py": 125,
    "tests/faults/test_14_migration_under_faults.py": 125,
    "tests/integration/test_broker_silent.py": 115,
    "tests/integration/test_processors.py": 105,
    "tests/faults/test_08_history_writer_killed.py": 95,
    "tests/integration/test_history_serve_hostile.py": 90,
    "tests/lab/test_migration.py": 90,
    "tests/integration/test_exporter.py": 85,
    "tests/integration/test_history_write.py": 85,
    "tests/lab/test_guest_agent.py": 85,
    "tests/lab/test_daemons.py": 80,
    "tests/lab/test_stuck_services.py": 80,
    "tests/lab/test_migration_disks.py": 75,
    "tests/lab/test_values.py": 75,
    "tests/faults/test_10_poison.py": 70,
    "tests/faults/test_07_broker_killed.py": 60,
    "tests/faults/test_09_rebalance_storm.py": 50,
    "tests/faults/test_18_slow_clients.py": 55,
    "tests/faults/test_20_wrong_passwords.py": 60,
    "tests/integration/test_fleet_page.py": 120,
    "tests/integration/test_check_secured.py": 90,
    "tests/faults/test_30_registry.py": 70,
    "tests/faults/test_21_history_object_store.py": 65,
    "tests/faults/test_25_processors_lose.py": 60,
    "tests/integration/test_history_query_limits.py": 60,
    "tests/integration/test_hostile_text.py": 60,
    "tests/lab/test_history.py": 60,
    "tests/lab/test_recovery.py": 60,
    "tests/faults/test_03_one_vm_stuck.py": 55,
    "tests/faults/test_05_events_survive.py": 55,
    "tests/faults/test_24_stop_and_kill.py": 55,
    "tests/faults/test_32_power_cut.py": 55,
    "tests/integration/test_history_spark.py": 55,
    "tests/lab/test_call_safety.py": 55,
    "tests/lab/test_migration_options.py": 55,
    "tests/faults/test_21_history_storage.py": 50,
    "tests/integration/test_adapter_scaling.py": 60,
    "tests/integration/test_adapter.py": 50,
    "tests/integration/test_exporter_broker_away.py": 45,
    "tests/integration/test_kafka_contract.py": 45,
    "tests/faults/test_02_libvirtd_hangs.py": 40,
    "tests/faults/test_31_offset_gaps.py": 35,
    "tests/lab/test_up.py": 35,
    "tests/integration/test_history_remote_read.py": 30,
    "tests/integration/test_publish_events.py": 30,
    "tests/property/test_history_truth.py": 10,
    # With --long alone, builds not counted.
    "tests/integration/test_debian_packages.py": 450,
    "tests/integration/test_compose_image.py": 220,
    "tests/integration/test_systemd.py": 100,
}
"""How long a file takes by itself on two CPUs. Those of more than half a minute need a line, and those with few tests that take seconds each:
other files begin by their number of tests, so that such a file would begin last and end alone."""
COMPUTING: Final = frozenset(
    {
        "tests/faults/test_04_many_vms_stuck.py",
        "tests/faults/test_14_migration_under_faults.py",
        "tests/lab/test_history.py",
        "tests/lab/test_migration.py",
        "tests/lab/test_migration_found.py",
        "tests/lab/test_migration_options.py",
    }
)
"""Files whose guests compute all the time, or whose host has a hundred of them."""
WITH_HYPERVISORS: Final = ("tests/lab/", *(f"tests/faults/test_{row}_" for row in ("01", "02", "03", "04", "14", "16", "17")))
"""What the names of files begin with whose rounds must be on time."""
LATE: Final = frozenset({"tests/integration/test_history_promql.py", "tests/integration/test_remote_read_equal.py"})
"""Files that need a current Prometheus, which ``prefetch`` builds meanwhile on a machine that has none: minutes of both CPUs."""
VARIABLE: Final = "VIRTFLOW_TEST_HYPERVISORS"
NICE: Final = 5
"""How much lower the priority of workers without hypervisors is: a third of the time that a hypervisor gets which wants all of a CPU."""


def hypervisors() -> int:
    """How many workers may run files with hypervisors; 0: all of them."""
    return int(os.environ.get(VARIABLE, "0"))


def lower_priority(worker: str) -> None:
    """To be called in the worker of that name ("gw0"), before it starts anything: gives precedence to those with hypervisors."""
    if hypervisors() and number_of(worker) >= hypervisors():
        os.nice(NICE)


def number_of(worker: str) -> int:
    """The number in a worker's name; they are counted from 0 on, and one that replaces a dead one goes on counting."""
    return int(worker.removeprefix("gw"))


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each worker whole files, the longest first, those with hypervisors to some workers, and those that compute to one alone."""

    def __init__(self, config: pytest.Config, log: Producer | None) -> None:
        """As xdist makes it."""
        super().__init__(config, log)
        self._computes: WorkerController | None = None

    def _reschedule(self, node: WorkerController) -> None:
        if self.workqueue and not node.shutting_down and not self._files(node):
            node.shutdown()
        else:
            super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        files = self._files(node) or list(self.workqueue)
        self.workqueue.move_to_end(max(files, key=_urgency), last=False)
        super()._assign_work_unit(node)

    def _files(self, node: WorkerController) -> list[str]:
        """Those that the worker may run next."""
        files: list[str] = list(self.workqueue)
        others = [file for file in files if not file.startswith(WITH_HYPERVISORS)]
        if not self._is_host(node):
            return others
        if self._computes not in self.nodes:  # the first time, and after the worker's death
            self._computes = node
        computing = [file for file in files if file in COMPUTING]
        waiting = [file for file in files if file not in COMPUTING and (file.startswith(WITH_HYPERVISORS) or not hypervisors())]
        return (computing or waiting if node is self._computes else waiting or computing) or others

    def _is_host(self, node: WorkerController) -> bool:
        """Whether it is one of the workers for hypervisors: the first ones that are alive."""
        first = sorted(self.nodes, key=lambda each: number_of(each.gateway.id))[: hypervisors() or None]
        return node in first


def _urgency(file: str) -> tuple[bool, int]:
    return file not in LATE, SECONDS.get(file, 0)
