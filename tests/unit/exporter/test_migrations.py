"""Migrations at /metrics: the table of the options, the hand-over between two nodes, conflicts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.vm_samples import INTERVAL, WALL, sample, series_of, text_of, uuid
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.migrations import MigrationText, Options
from virtflow.exporter.render.node import NodeText
from virtflow.exporter.render.vm import VmText
from virtflow.exporter.selection import NAMES
from virtflow.schemas.catalogue.migration import MIGRATION_METRICS
from virtflow.schemas.order import Freshness
from virtflow.schemas.records import VmMigration
from virtflow.schemas.states import PAUSED, PAUSED_MIGRATION, PAUSED_STARTING_UP, RUNNING, SHUT_OFF, SHUT_OFF_MIGRATED

ALL = {metric.name for metric in MIGRATION_METRICS}
NUMBERS = {"vm_migration_memory_iteration": "4", "vm_migration_elapsed_seconds": "10.5", "vm_migration_disk_remaining_bytes": "0"}
FINAL = {**NUMBERS, "vm_migration_downtime_seconds": "0.105", "vm_migration_resumed_timestamp_seconds": "1500000000.0"}


def migration(result: str = "running", revision: int = 1, **fields: Any) -> VmMigration:  # noqa: ANN401, any field
    given: dict[str, Any] = {
        "uuid": uuid(1),
        "source": "node-1",
        "destination": "node-2",
        "operation": "migration_out",
        "type": "unbounded",
        "memory_iteration": 4,
        "elapsed_seconds": 10.5,
        "disk_remaining_bytes": 0,
    }
    return VmMigration(result=result, revision=revision, **(given | fields))


DONE = migration("completed", 2, downtime_seconds=0.105, type="completed", resumed_timestamp_seconds=1.5e9)


def fleet(options: Options) -> Fleet:
    return Fleet(VmText(NAMES), NodeText(NAMES), 3600.0, MigrationText(NAMES, options))


def shown(vms: Fleet, now: float) -> dict[str, str]:
    """The VM's migration series by name, and that each is there once."""
    lines = [line for line in text_of(vms, now).splitlines() if line.startswith("vm_migration_")]
    names = [re.split("[{ ]", line)[0] for line in lines]
    assert len(set(names)) == len(names)
    return {name: line.rsplit(" ", 1)[1] for name, line in zip(names, lines, strict=True)}


def with_absent(known: dict[str, str], active: str, absent: str, *, info: bool = True) -> dict[str, str]:
    present = {**known, "vm_migration_active": active, **({"vm_migration_info": "1"} if info else {})}
    return present if not absent else {name: present.get(name, absent) for name in ALL}


@pytest.mark.parametrize("absent", ["NaN", "-1"])
@pytest.mark.parametrize("keep_last", [False, True])
@pytest.mark.parametrize("always_export", [False, True])
def test_the_options_in_all_combinations(always_export: bool, keep_last: bool, absent: str) -> None:  # noqa: FBT001, the table's columns
    """Never migrated, running, just ended, long ended, and after a restart of the exporter: the table of docs/migrations.md."""
    options, value = Options(always_export, absent, keep_last), absent if always_export else ""
    nothing = with_absent({}, "0", value, info=False) if always_export else {}
    vms = fleet(options)
    vms.take_metrics(sample(1), 0.0)
    assert shown(vms, 0.0) == nothing
    vms.take_migration(migration(), 1.0)
    assert shown(vms, 1.0) == with_absent(NUMBERS, "1", value)
    vms.take_migration(DONE, 5.0)
    vms.take_metrics(sample(1, sequence=2), 20.0)
    assert shown(vms, 5.0 + 2.9 * INTERVAL) == with_absent(FINAL, "0", value)
    later = 5.0 + 3 * INTERVAL
    vms.take_metrics(sample(1, sequence=3), later)
    kept = with_absent(FINAL, "0", value) if keep_last else nothing
    assert shown(vms, later) == kept
    restarted = fleet(options)
    restarted.take_migration(DONE, later - 1000.0)
    restarted.take_metrics(sample(1, sequence=4), later)
    assert shown(restarted, later) == kept
    vms.take_migration(migration(revision=3, memory_iteration=-1), later)
    assert shown(vms, later) == with_absent({k: v for k, v in NUMBERS.items() if not k.endswith("iteration")}, "1", value)


def test_the_words_of_a_migration() -> None:
    vms = fleet(Options())
    vms.take_metrics(sample(1), 0.0)
    vms.take_migration(DONE, 0.0)
    labels = 'operation="migration_out",type="completed",source="node-1",destination="node-2",result="completed"'
    assert f'vm_migration_info{{uuid="{uuid(1)}",name="vm-1",{labels}}} 1\n' in text_of(vms)
    assert list(text_string_to_metric_families(text_of(vms)))


def test_an_older_revision_changes_nothing() -> None:
    vms = fleet(Options())
    assert vms.take_migration(DONE, 0.0) is Freshness.NEW
    assert vms.take_migration(DONE, 0.0) is Freshness.DUPLICATE
    assert vms.take_migration(migration(), 0.0) is Freshness.STALE
    vms.migrations.forget(uuid(1))
    assert vms.take_migration(migration(), 0.0) is Freshness.NEW


def test_families_that_are_left_out_are_not_rendered() -> None:
    names = frozenset({"vm_migration_active"})
    text = MigrationText(names, Options(always_export=True))
    assert text.lines(None, 'uuid="x"') == ('vm_migration_active{uuid="x"} 0\n',)


def speaking(vms: Fleet, now: float) -> str:
    """The node whose sample is shown, told by its CPU counter."""
    lines = [line for line in text_of(vms, now).splitlines() if line.startswith("vm_cpu_seconds_total")]
    assert len(lines) <= 1
    return lines[0].rsplit(" ", 1)[1] if lines else ""


def test_the_hand_over_of_a_live_migration() -> None:
    """Source and destination sample on: one series at every scrape, the source's until the destination's, and never back."""
    vms = fleet(Options())

    def source(sequence: int, state: int = RUNNING, reason: int = 1) -> None:
        vms.take_metrics(sample(1, sequence, state=state, state_reason=reason, cpu_seconds_total=100.0 + sequence), 10.0 * sequence)

    def destination(sequence: int, state: int, reason: int) -> None:
        fields = {"node": "node-2", "state": state, "state_reason": reason, "cpu_seconds_total": float(sequence)}
        vms.take_metrics(sample(1, sequence, **fields), 10.0 * sequence + 5)

    source(1)
    destination(1, PAUSED, PAUSED_STARTING_UP)
    vms.take_migration(migration(revision=1), 15.0)
    source(2)
    destination(2, PAUSED, PAUSED_MIGRATION)
    assert speaking(vms, 25.0) == "102.0"
    source(3, PAUSED, PAUSED_MIGRATION)
    assert speaking(vms, 30.0) == "103.0"
    vms.take_migration(migration(revision=2, resumed_timestamp_seconds=1.5e9), 31.0)
    destination(3, RUNNING, 2)
    assert speaking(vms, 35.0) == "3.0"
    source(4, SHUT_OFF, 4)
    vms.take_migration(migration("completed", 3, resumed_timestamp_seconds=1.5e9), 41.0)
    assert speaking(vms, 41.0) == "3.0"


def test_a_vm_that_waits_for_its_memory_is_no_sample_of_it() -> None:
    """Arriving where it was a moment ago, after the hand-over and before the next one is known: what is shown stays."""
    vms = fleet(Options())
    vms.take_migration(migration("completed", 2, source="node-2", destination="node-1", resumed_timestamp_seconds=1.6e9), 0.0)
    vms.take_metrics(sample(1, 1, cpu_seconds_total=7.0), 0.0)
    for sequence, reason in enumerate((PAUSED_STARTING_UP, PAUSED_MIGRATION), 1):
        vms.take_metrics(sample(1, sequence, node="node-2", state=PAUSED, state_reason=reason, cpu_seconds_total=0.0), 1.0)
        assert speaking(vms, 1.0) == "7.0"
    assert vms.take_metrics(sample(1, 2, node="node-2", state=PAUSED), 2.0) is Freshness.DUPLICATE
    vms.take_metrics(sample(1, 3, node="node-2", cpu_seconds_total=0.5), 3.0)
    vms.take_migration(migration("completed", 4, resumed_timestamp_seconds=1.65e9, paused_timestamp_seconds=1.75e9), 3.0)
    assert speaking(vms, 3.0) == "0.5"


def test_the_last_sample_of_a_source_that_keeps_the_definition_ages_until_the_destination_s_first() -> None:
    """Shut off (migrated) is never exported; without a destination's sample the VM's series vanish three intervals after the last one."""
    age = f'vm_sample_age_seconds{{uuid="{uuid(1)}",name="vm-1"}}'
    left = {"state": SHUT_OFF, "state_reason": SHUT_OFF_MIGRATED, "cpu_seconds_total": float("nan")}
    vms = fleet(Options())
    vms.take_metrics(sample(1, 0, cpu_seconds_total=100.0), 0.0)
    for sequence in (1, 2):
        vms.take_metrics(sample(1, sequence, **left), 10.0 * sequence)
        series = series_of(vms, 10.0 * sequence, WALL + 10.0 * sequence)
        assert series[f'vm_cpu_seconds_total{{uuid="{uuid(1)}",name="vm-1"}}'] == "100.0"
        assert float(series[age]) == 10.0 * sequence
    vms.take_metrics(sample(1, 3, **left), 30.0)
    assert text_of(vms, 30.0) == ""
    # The destination's clock is an hour behind.
    vms.take_metrics(sample(1, 0, node="node-2", collected=WALL - 3600, cpu_seconds_total=0.5), 31.0)
    vms.take_metrics(sample(1, 4, **left), 40.0)
    assert speaking(vms, 40.0) == "0.5"
    assert text_of(vms, 61.0) == "", "a silent destination takes the VM with it"


def test_a_late_sample_of_a_process_that_is_over_by_its_state_is_not_exported_again() -> None:
    """The migration is not known yet, and the destination's clock is an hour behind."""
    vms = fleet(Options())
    vms.take_metrics(sample(1, 0, cpu_seconds_total=100.0), 0.0)
    vms.take_metrics(sample(1, 1, state=SHUT_OFF, state_reason=SHUT_OFF_MIGRATED), 1.0)
    vms.take_metrics(sample(1, 0, node="node-2", collected=WALL - 3600, cpu_seconds_total=0.5), 2.0)
    assert speaking(vms, 2.0) == "0.5"


def test_a_failed_migration_leaves_the_vm_with_its_source() -> None:
    """Whatever a destination that has not noticed goes on to say."""
    vms = fleet(Options())
    vms.take_metrics(sample(1, 1, cpu_seconds_total=7.0), 0.0)
    vms.take_metrics(sample(1, 2, node="node-2", state=PAUSED, state_reason=PAUSED_MIGRATION, cpu_seconds_total=1.0), 1.0)
    vms.take_migration(migration("failed", 2), 2.0)
    assert speaking(vms, 2.0) == "7.0"


def test_two_that_run_it_for_longer_than_a_hand_over_are_a_conflict() -> None:
    """A second host that claims the VM: the newest migration decides who is shown, and the conflict is."""
    vms = fleet(Options())
    vms.take_migration(DONE, 0.0)
    conflict = f'vm_conflict{{uuid="{uuid(1)}",name="vm-1"}} '
    for sequence in range(4):
        at = 10.0 * sequence
        vms.take_metrics(sample(1, sequence, cpu_seconds_total=900.0), at)
        vms.take_metrics(sample(1, sequence, node="node-2", cpu_seconds_total=4.0), at)
        assert speaking(vms, at) == "4.0"
        assert (conflict + ("1" if at > 2 * INTERVAL else "0")) in text_of(vms, at)


def test_a_restarted_exporter_shows_no_earlier_stay() -> None:
    """Over three hosts within the time that samples stay; of the trip only the last hop is known, and its destination has not sampled yet."""
    hops = {"source": "node-2", "destination": "node-3", "paused_timestamp_seconds": 1.7e9 + 25, "resumed_timestamp_seconds": 1.7e9 + 26}
    stays = [sample(1, 1, cpu_seconds_total=900.0), sample(1, 2, node="node-2", cpu_seconds_total=5.0)]
    for first, second in (stays, stays[::-1]):
        vms = fleet(Options())
        vms.take_metrics(first, 10.0 * first.sequence)
        vms.take_migration(migration("completed", 9, **hops), 26.0)
        vms.take_metrics(second, 10.0 * second.sequence)
        assert speaking(vms, 27.0) == "5.0"
        vms.take_metrics(sample(1, 3, node="node-3", cpu_seconds_total=0.5), 30.0)
        assert speaking(vms, 30.0) == "0.5"
        vms.take_metrics(sample(1, 4, cpu_seconds_total=901.0), 40.0)
        assert speaking(vms, 40.0) == "0.5"


def test_revisions_begin_anew_with_the_topic() -> None:
    vms = fleet(Options())
    vms.take_migration(DONE, 0.0)
    vms.migrations.forget_all()
    assert vms.migrations.newest(uuid(1)) is None
    assert vms.take_migration(migration(), 0.0) is Freshness.NEW


def test_a_hand_over_without_its_record_is_seen_after_three_intervals() -> None:
    """The records of the second migration are deleted unread: the first one's destination stays until its sample expires, and no longer."""
    vms = fleet(Options())
    vms.take_migration(DONE, 0.0)
    vms.take_metrics(sample(1, 1, node="node-2", cpu_seconds_total=100.0), 10.0)
    vms.take_metrics(sample(1, 1, node="node-3", cpu_seconds_total=1.0), 15.0)
    assert speaking(vms, 15.0) == "100.0"
    vms.take_metrics(sample(1, 2, node="node-3", cpu_seconds_total=11.0), 25.0)
    vms.take_metrics(sample(1, 3, node="node-3", cpu_seconds_total=21.0), 35.0)
    assert speaking(vms, 10.0 + 2.9 * INTERVAL) == "100.0"
    assert speaking(vms, 10.0 + 3 * INTERVAL) == "21.0"


def test_the_next_record_after_a_missing_one_ends_it() -> None:
    vms = fleet(Options())
    vms.take_migration(DONE, 0.0)
    vms.take_metrics(sample(1, 1, node="node-2", cpu_seconds_total=100.0), 10.0)
    vms.take_metrics(sample(1, 1, node="node-3", cpu_seconds_total=1.0), 15.0)
    over = migration("completed", 9, source="node-2", destination="node-3", resumed_timestamp_seconds=1.6e9)
    assert vms.take_migration(over, 16.0) is Freshness.NEW
    assert speaking(vms, 16.0) == "1.0"
