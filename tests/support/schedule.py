"""Which worker process runs which test files, and in what order.

A file's tests share fixtures that are expensive to make (hypervisors, a broker), so one worker runs them all. The longest files start
first, so that no worker ends long after the others. Files whose guests compute run on one worker, one after another, and so do those of
the layer integration where it runs beside others: each kind would slow itself down, while the other workers mostly wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Generic, Literal, TypeVar

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
    "tests/lab/test_migration_disks.py": 130,
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
    "tests/lab/test_values.py": 75,
    "tests/faults/test_10_poison.py": 110,
    "tests/faults/test_23_bad_network.py": 75,
    "tests/faults/test_07_broker_killed.py": 60,
    "tests/faults/test_05_outage_drains.py": 35,
    "tests/faults/test_06_broker_disk_full.py": 35,
    "tests/faults/test_09_rebalance_storm.py": 50,
    "tests/faults/test_18_slow_clients.py": 55,
    "tests/faults/test_20_wrong_passwords.py": 60,
    "tests/integration/test_fleet_page.py": 120,
    "tests/integration/test_fleet_charts.py": 45,
    "tests/integration/test_fleet_history.py": 60,
    "tests/integration/test_check_secured.py": 90,
    "tests/integration/test_oauth.py": 60,
    "tests/faults/test_30_registry.py": 70,
    "tests/faults/test_21_history_object_store.py": 65,
    "tests/faults/test_25_processors_lose.py": 60,
    "tests/integration/test_history_query_limits.py": 60,
    "tests/integration/test_hostile_text.py": 60,
    "tests/lab/test_history.py": 60,
    "tests/simulation/test_worlds.py": 65,
    "tests/lab/test_recovery.py": 60,
    "tests/faults/test_03_one_vm_stuck.py": 55,
    "tests/faults/test_05_events_survive.py": 55,
    "tests/faults/test_24_history_stops.py": 70,
    "tests/faults/test_24_stop_and_kill.py": 55,
    "tests/faults/test_32_power_cut.py": 55,
    "tests/integration/test_history_spark.py": 55,
    "tests/lab/test_call_safety.py": 55,
    "tests/lab/test_migration_releases.py": 45,
    "tests/lab/test_migration_options.py": 55,
    "tests/faults/test_21_history_storage.py": 50,
    "tests/integration/test_adapter_scaling.py": 60,
    "tests/integration/test_adapter.py": 50,
    "tests/integration/test_exporter_broker_away.py": 45,
    "tests/integration/test_kafka_contract.py": 45,
    "tests/faults/test_02_libvirtd_hangs.py": 40,
    "tests/faults/test_31_offset_gaps.py": 35,
    "tests/integration/test_top_kafka.py": 35,
    "tests/lab/test_up.py": 35,
    "tests/integration/test_history_tenants_promql.py": 40,
    "tests/integration/test_history_remote_read.py": 30,
    "tests/integration/test_publish_events.py": 30,
    "tests/counts/test_coverage.py": 25,
    "tests/property/test_history_truth.py": 15,
    "tests/unit/history/test_bill.py": 8,
    "tests/unit/history/test_rollup_cases.py": 7,
    "tests/unit/producer/test_threads.py": 6,
    "tests/unit/history/test_failures.py": 5,
    "tests/contract/test_docs_code.py": 5,
    "tests/contract/test_generated.py": 5,
    "tests/unit/exporter/test_long_history.py": 4,
    "tests/contract/test_deploy.py": 4,
    # With --long alone, builds not counted.
    "tests/integration/test_debian_packages.py": 450,
    "tests/integration/test_compose_image.py": 220,
    "tests/integration/test_systemd.py": 100,
    "tests/integration/test_ansible.py": 90,
    "tests/integration/test_install_fleet.py": 240,
    "tests/integration/test_deploy_page.py": 600,
    "tests/faults/test_26_release_before.py": 120,
    "tests/integration/test_secured_pipeline.py": 40,
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


SERVING: Final = "tests/integration/"
"""The folder whose files start brokers, services and databases, one program after another."""

Kind = Literal["computing", "serving", "waiting"]
Worker = TypeVar("Worker")
FIRST: Final[tuple[tuple[Kind, ...], ...]] = (("computing", "waiting", "serving"), ("serving", "waiting", "computing"))
"""Which kinds the first worker and the second one prefer, in order."""
OTHERS: Final[tuple[Kind, ...]] = ("waiting", "serving", "computing")


def kind_of(file: str) -> Kind:
    """What its tests mostly do."""
    if file in COMPUTING:
        return "computing"
    return "serving" if file.startswith(SERVING) else "waiting"


class Roles(Generic[Worker]):
    """Which file each worker takes next: the longest of the kind that it prefers."""

    def __init__(self) -> None:
        """No worker has asked yet."""
        self._holders: list[Worker | None] = [None] * len(FIRST)

    def next_file(self, worker: Worker, alive: Collection[Worker], files: Iterable[str]) -> str:
        """The file for a worker out of ``files``, of which there is one at least; a role whose worker is not ``alive`` goes to this one."""
        preferred = self._preferred(worker, alive)
        return min(files, key=lambda file: (preferred.index(kind_of(file)), -SECONDS.get(file, 0)))

    def _preferred(self, worker: Worker, alive: Collection[Worker]) -> tuple[Kind, ...]:
        if worker not in self._holders:
            vacant = [number for number, holder in enumerate(self._holders) if holder not in alive]
            if not vacant:
                return OTHERS
            self._holders[vacant[0]] = worker
        return FIRST[self._holders.index(worker)]


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each worker whole files, the longest first, by the workers' roles."""

    def __init__(self, config: pytest.Config, log: Producer | None) -> None:
        """As xdist makes it."""
        super().__init__(config, log)
        self._roles: Roles[WorkerController] = Roles()

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(self._roles.next_file(node, self.nodes, self.workqueue), last=False)
        super()._assign_work_unit(node)
