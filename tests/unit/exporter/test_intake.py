"""Messages wait for each other where many come and nobody reads, and are handed over in their order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.support.exporter_intake import Sent, Served, few_are_many, sent
from tests.support.guest_samples import told
from tests.support.vm_samples import WALL, everything, inventory, sample, uuid
from virtflow.exporter.columns import intake
from virtflow.exporter.exposition import exposition
from virtflow.exporter.selection import NAMES
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import METRICS

ROOT = Path(__file__).resolve().parents[3]
VMS = 5


def round_of(sequence: int, vms: int = VMS) -> list[Sent]:
    """A sample of each VM."""
    return [sent(sample(number, sequence, collected=WALL + sequence)) for number in range(1, vms + 1)]


def in_columns() -> Served:
    """A fleet whose VMs are in columns."""
    served = Served(together=True)
    served.take(*round_of(0))
    served.intake.settle()
    assert served.in_columns() == VMS
    return served


def test_a_sample_that_is_replaced_before_anybody_reads_is_not_read_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten rounds only the first one's samples become records; a scrape needs none."""
    few_are_many(monkeypatch)
    served = in_columns()
    for sequence in range(1, 10):
        served.take(*round_of(sequence))
        served.intake.settle()
    assert f'vm_cpu_seconds_total{{uuid="{uuid(3)}",name="vm-3"}} 21.5' in served.text()
    assert served.codec.decoded == VMS


def test_whoever_reads_sees_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape, a list of VMs, one VM: each as if the messages had not waited."""
    few_are_many(monkeypatch)
    newest = f'vm_cpu_seconds_total{{uuid="{uuid(1)}",name="vm-1"}} 19.5'
    reads: tuple[Callable[[Served], bool], ...] = (
        lambda served: newest in served.text(),
        lambda served: newest in "".join(exposition(served.fleet, NAMES, WALL, {})),
        lambda served: {vm.exported.sequence for vm in served.fleet.vms() if vm.exported is not None} == {7},
        lambda served: (
            (vm := served.fleet.known(uuid(1))) is not None and vm.in_columns is not None and vm.in_columns.collected == WALL + 7
        ),
    )
    for read in reads:
        served = in_columns()
        served.take(*round_of(7))
        assert read(served)


def test_a_vm_that_goes_on_reporting_does_not_vanish_while_its_samples_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    few_are_many(monkeypatch)
    served = in_columns()
    served.now = 29.0
    served.take(*round_of(3))
    served.now = 31.0
    assert len(served.fleet.vms()) == VMS
    served.fleet.expire(served.now)
    assert len(served.fleet.vms()) == VMS
    served.fleet.expire(29.0 + 30.0)
    assert (served.fleet.vms(), served.in_columns()) == ([], 0)


def test_samples_wait_for_a_second_or_for_many() -> None:
    served = Served(together=True)
    served.now = 100.0
    served.intake._counted_since = 100.0
    served.take(*round_of(0))
    assert not served.intake.due()
    served.now = 100.9
    served.take(*round_of(1))
    assert not served.intake.due()
    served.now = 100.999
    served.take(*(round_of(1) * (intake.MOST // VMS)))
    assert served.intake.due()
    served.intake.settle()
    assert not served.intake.due()
    served.take(*round_of(2))
    served.now = 102.0
    assert served.intake.due()


def test_nothing_waits_where_few_messages_come() -> None:
    """So many a second as pay make samples wait, measured over a second; then fewer do not any more."""
    served = Served(together=True)
    served.intake._many = False
    served.now = 1.0
    assert served.intake.due()
    served.take(*round_of(0, 390))
    served.now = 2.0
    assert served.intake.due()
    served.intake.settle()
    served.now = 2.5
    served.take(*round_of(1, 410))
    served.now = 3.0
    assert not served.intake.due()
    served.now = 4.0
    assert served.intake.due()
    served.intake.settle()
    served.take(*round_of(2))
    assert served.intake.due()


def served_for(rates: Iterable[int]) -> Served:
    """A fleet that has just begun and got so many samples in each second, while somebody reads."""
    served = Served(together=True)
    served.intake._many = served.intake._lasting = False
    for sequence, rate in enumerate(rates):
        served.now += 1.0
        served.take(*round_of(sequence, rate))
        served.intake.due()
        served.intake.settle()
    return served


def test_a_burst_after_an_outage_makes_no_columns_and_a_load_that_lasts_does() -> None:
    """Of 200 VMs what 90 seconds have left comes in one second; a fleet of 500 samples a second has columns within a minute."""
    burst = served_for([20] * 5 + [1_800] + [20] * 30)
    assert burst.in_columns() == 0
    assert burst.fleet.table is None
    assert served_for([500] * 45).in_columns() == 500


def test_nothing_waits_during_the_catch_up_beside_a_stream_or_for_a_reader_of_all_samples() -> None:
    for hurry in ("catch-up", "stream", "all samples"):
        served = Served(together=hurry != "all samples")
        served.intake._many = True
        served.intake._counted_since = served.now
        if hurry == "catch-up":
            served.intake.caught_up = False
        if hurry == "stream":
            served.fleet.changes.listeners.add(lambda: None)
        served.take(*round_of(0))
        assert served.intake.due(), hurry
        served.intake.settle()
        assert served.in_columns() == 0


def test_one_bad_message_costs_itself_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The others of its batch stay in columns, also its own VM's, and it is counted and named."""
    few_are_many(monkeypatch)
    served = in_columns()
    whole = sent(sample(1, 2, collected=WALL + 2)).content or b""
    bad = Sent(METRICS, uuid(1).encode(), whole[:-3])
    served.take(*round_of(1), bad, *round_of(3))
    served.intake.settle()
    assert served.metrics.value("virtflow_exporter_undecodable_total", "vm.metrics") == 1.0
    assert "vm.metrics [0] offset 7 is skipped: truncated" in caplog.text
    assert served.codec.decoded == VMS + 1
    assert all(vm.in_columns is not None and vm.in_columns.collected == WALL + 3 for vm in served.fleet.vms())


def test_what_happens_to_a_vm_is_taken_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sample before a migration, the migration, and the one after it, in one batch; the other VMs stay in columns."""
    few_are_many(monkeypatch)
    served, rows = in_columns(), Served(together=False)
    rows.take(*round_of(0))
    moved = VmMigration(uuid=uuid(2), id="m", source="node-1", destination="node-2", result="completed", revision=1)
    there = sample(2, 0, node="node-2", boot_id="b2", collected=WALL + 9)
    batch = [*round_of(1), sent(moved), sent(there), sent(inventory(3)), *round_of(2)]
    for each in (served, rows):
        each.take(*batch)
        each.intake.settle()
    assert served.text() == rows.text()
    assert served.state() == rows.state()
    assert served.in_columns() == VMS - 1


def test_a_fleet_with_agents_is_read_row_by_row_after_one_batch_in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most samples can't be kept in columns, none waits for a while; then columns are tried again."""
    monkeypatch.setattr(intake, "LEAST", VMS)
    monkeypatch.setattr(intake, "ROW_BATCHES", 2)
    served = Served(together=True)
    served.intake._counted_since = served.now
    due = []
    for sequence in range(8):
        served.take(*[sent(sample(number, sequence, guest=[told()])) for number in range(VMS)])
        due.append(served.intake.due())
        served.intake.settle()
    assert due == [False, True, True, False, True, True, False, True]
    assert served.in_columns() == 0


def test_the_golden_sample_is_the_same_in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every family of libvirt's, but for what the guest's agent says."""
    few_are_many(monkeypatch)
    from msgspec.structs import replace

    served, rows = Served(together=True), Served(together=False)
    for sequence in range(3):
        record = replace(everything(), guest=[], sequence=sequence)
        for each in (served, rows):
            each.take(sent(record))
            each.intake.settle()
    assert (served.in_columns(), rows.in_columns()) == (1, 0)
    assert served.text() == rows.text()
    assert served.text().count("\n") > 120


def test_a_step_of_work_can_be_finished_by_whoever_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed hands over in steps; a scrape between two of them sees all."""
    few_are_many(monkeypatch)
    served = Served(together=True)
    served.take(*round_of(0, 170))
    steps = served.intake.settling()
    next(steps)
    assert len(served.fleet.vms()) == 170
    assert list(steps) == []
    assert served.metrics.value("virtflow_exporter_records_total", "vm.metrics") == 170.0


def test_an_exporter_of_a_small_fleet_loads_no_numpy() -> None:
    """Its memory is for columns alone."""
    code = (
        "import sys; import virtflow.exporter.service, virtflow.exporter.consumer; "
        "from tests.unit.exporter.test_intake import Served, round_of; served = Served(together=True); "
        "[(served.take(*round_of(number)), served.intake.settle()) for number in range(3)]; served.text(); "
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": f"{ROOT / '.types'}:{ROOT}"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
