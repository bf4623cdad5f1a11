"""From messages to records that are worth a row: what can't be decoded, or can't be true, is counted and skipped."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Final

import msgspec

from virtflow.history.storage.table_schemas import SAMPLES, WRITTEN, Table
from virtflow.history.writer.rows.arrow import DAY_SECONDS, Numbers
from virtflow.history.writer.rows.record_rows import ArrivedMigration, moment_of
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.ranges import EARLIEST_SECONDS, LATEST_SECONDS
from virtflow.schemas.records import VmEvent, VmInventory, VmMetrics, VmMigration

_LOG: Final = logging.getLogger("virtflow.history.writer.validation")
_RECORDS: Final[dict[str, type[Any]]] = {"VmMetrics": VmMetrics, "VmEvent": VmEvent, "VmMigration": VmMigration, "VmInventory": VmInventory}
_EXPECTED: Final = {table.name: _RECORDS[table.topic.record] for table in WRITTEN if table.topic is not None}


class Intake:
    """Decodes messages and judges their records. Never raises for what is in a message."""

    def __init__(self, codec: Codec, settings: History, metrics: OwnMetrics) -> None:
        """``settings`` say how old and how far ahead a record may be."""
        self.codec: Final = codec
        self._future = settings.future_seconds
        self._oldest = settings.raw_days * DAY_SECONDS
        self._records = metrics.counter("virtflow_history_records_total")
        self._skipped = metrics.counter("virtflow_history_skipped_records_total")

    def record(self, table: Table, value: bytes | None, arrived: float) -> Any | None:  # noqa: ANN401, the table's own record
        """The record in a message that arrived at the broker at ``arrived`` (Unix seconds), None where there is none worth a row."""
        record, reason = self.judged(table, value, arrived)
        if reason:
            self.skipped(table, reason, 1)
        return record

    def judged(self, table: Table, value: bytes | None, arrived: float) -> tuple[Any | None, str]:
        """The record, or None and why there is none; not counted."""
        if value is None:
            # The end of a key in a compacted topic: history keeps what was.
            return None, "tombstone"
        try:
            record = self.codec.decode(value, _EXPECTED[table.name])
        except UndecodableError as error:
            _LOG.warning("a record for %s is skipped: %s", table.name, error)
            return None, error.reason.value
        if isinstance(record, VmMigration) and math.isnan(moment_of(record)):
            record = ArrivedMigration(**msgspec.structs.asdict(record), arrived=arrived)
        reason = self._unfit(table, moment_of(record), arrived)
        if reason:
            _LOG.warning("a record for %s is skipped: %s: %s", table.name, reason, moment_of(record))
        return (None, reason) if reason else (record, "")

    def untimely(self, table: Table, moments: Numbers, arrived: Numbers) -> tuple[Numbers, Numbers]:
        """Of records with a time those that are ahead of their arrival, and those whose day is gone."""
        future = moments > arrived + self._future
        late = ~future & (moments < time.time() - self._oldest)
        for reason, which in (("future", future), ("too_late", late)):
            if which.any():
                _LOG.warning("%d records for %s are skipped: %s: %s", which.sum(), table.name, reason, moments[which][0])
        return future, late

    def taken(self, table: Table, count: int) -> None:
        """Counts records that have come."""
        self._records.labels(table=table.name).inc(count)

    def skipped(self, table: Table, reason: str, count: int) -> None:
        """Counts records that are left out."""
        if count:
            self._skipped.labels(table=table.name, reason=reason).inc(count)

    def _unfit(self, table: Table, moment: float, arrived: float) -> str:
        """Why a record of that time gets no row; "" when it does. Judged by the broker's clock, so that reading again judges alike."""
        if math.isnan(moment) or not EARLIEST_SECONDS <= moment <= LATEST_SECONDS:
            return "timeless"
        if moment > arrived + self._future:
            return "future"
        # Its day's samples are gone, and rolled up without them the day would be wrong.
        return "too_late" if table is SAMPLES and moment < time.time() - self._oldest else ""
