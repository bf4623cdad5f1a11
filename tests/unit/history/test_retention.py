"""What is too old goes, also names of former owners; what still holds of a VM stays. A migration without a moment is stored."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc

from tests.support.history_lives import Kept, record, vm_uuid
from tests.support.history_truth import SECOND, Seen
from virtflow.history.storage.table_schemas import COUNTERS, HOURLY, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES
from virtflow.history.writer.dedup import Changes
from virtflow.history.writer.rows.record_rows import record_rows
from virtflow.history.writer.table_writer import TableWriter
from virtflow.history.writer.validation import Intake
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import VmInventory, VmMigration

DAY = 86_400
TODAY = int(time.time()) // DAY * DAY
ALIVE, GONE = vm_uuid(1), vm_uuid(2)


def seen(at: int, cpu: float) -> Seen:
    return Seen(at * SECOND, "n", "run", at, 600.0, 1, 1, told={("vm", ""): {"vm_cpu_seconds_total": cpu}})


def test_inventory_expires_as_daily_rows_do(tmp_path: Path) -> None:
    """Of a VM that lives the row that holds is kept however old; its former owners, and a VM that is gone, are not."""
    history = Kept(tmp_path, daily_days=10)
    history.rolled([[record(ALIVE, seen(TODAY - DAY, 1.0))]])
    writer = TableWriter(history.store.make(INVENTORY_ROWS), Changes())
    writer.begin(["p"])
    told = [(ALIVE, 40, "anna"), (ALIVE, 30, "bert"), (ALIVE, 1, "carl"), (GONE, 30, "dora")]
    for offset, (vm, days, user) in enumerate(told):
        writer.take("p", offset, VmInventory(uuid=vm, name="vm", node="n", collected=float(TODAY - days * DAY), user=user))
    writer.commit()
    for _ in range(2):
        history.maintain()
        left = history.store.open(INVENTORY_ROWS).dataset().to_table(columns=["user"]).column("user").to_pylist()
        assert sorted(left) == ["bert", "carl"]


def test_growth_goes_on_after_a_gap_longer_than_samples_are_kept(tmp_path: Path) -> None:
    """Silent for twenty days with samples kept for two: the counter goes on where it stood, and only as many hours of state are kept."""
    history = Kept(tmp_path, raw_days=36_500)
    history.rolled([[record(ALIVE, seen(TODAY - 20 * DAY, 100.0)), record(GONE, seen(TODAY - 5 * DAY, 0.0))]])
    short = Kept(tmp_path, raw_days=2)
    short.maintain()
    assert len(history.store.open(COUNTERS).files()) == 3, "the days after still go on from the file of the whole first one"
    short.write([record(ALIVE, seen(TODAY, 175.0))])
    short.maintain()
    rows = history.store.open(HOURLY).dataset().to_table(filter=pc.field("uuid") == ALIVE)
    assert sorted(rows.column("vm_cpu_seconds_total_increase").to_pylist()) == [0.0, 75.0]
    assert {file.day for file in history.store.open(COUNTERS).files()} == {
        f"{datetime.fromtimestamp(TODAY - days * DAY, UTC):%Y-%m-%d}" for days in (5, 0)
    }


def test_a_migration_heard_of_from_its_destination_first_is_stored() -> None:
    """It tells no moment: its row has the time at which the broker got it."""
    intake = Intake(Codec(), History(), OwnMetrics("history"))
    arriving = VmMigration(uuid=ALIVE, id="b:boot:1", destination="b", result="running", revision=1)
    message, arrived = Codec().encode(arriving), float(TODAY)
    judged, reason = intake.judged(MIGRATION_ROWS, message, arrived)
    assert reason == ""
    assert isinstance(judged, VmMigration)
    later = VmMigration(uuid=ALIVE, id="b:boot:1", result="completed", ended_timestamp_seconds=TODAY + 5.0, revision=2)
    rows = record_rows(MIGRATION_ROWS, [judged, later]).to_pylist()
    assert [row["time"].timestamp() for row in rows] == [TODAY, TODAY + 5.0]
    assert rows[0]["updated_timestamp_seconds"] is None


def test_upkeep_goes_on_where_the_log_no_longer_reaches_back(tmp_path: Path) -> None:
    """It stood still while the writer's own checkpoints let the log expire."""
    history = Kept(tmp_path)
    history.rolled([[record(ALIVE, seen(TODAY - DAY, 100.0))]])
    history.write([record(ALIVE, seen(TODAY - DAY + 600, 175.0))])
    opened = history.store.open(SAMPLES)
    opened.delta.create_checkpoint()
    for entry in (tmp_path / SAMPLES.name / "_delta_log").glob("*.json"):
        if int(entry.stem) < opened.version:
            entry.unlink()
    history.maintain()
    rows = history.store.open(HOURLY).dataset().to_table(filter=pc.field("uuid") == ALIVE)
    assert rows.column("vm_cpu_seconds_total_increase").to_pylist() == [75.0]
