"""From messages to records that are worth a row: what can't be decoded, or can't be true, is counted and passed by."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Final

from virtflow.history.layout import SAMPLES, WRITTEN, Table
from virtflow.history.rows import DAY_SECONDS, moment_of
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.codec import Codec
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.ranges import EARLIEST_SECONDS, LATEST_SECONDS
from virtflow.schemas.records import VmEvent, VmInventory, VmMetrics, VmMigration

_LOG: Final = logging.getLogger("virtflow.history.intake")
_RECORDS: Final[dict[str, type[Any]]] = {"VmMetrics": VmMetrics, "VmEvent": VmEvent, "VmMigration": VmMigration, "VmInventory": VmInventory}
_EXPECTED: Final = {table.name: _RECORDS[table.topic.record] for table in WRITTEN if table.topic is not None}


class Intake:
    """Decodes messages and judges their records. Never raises for what is in a message."""

    def __init__(self, codec: Codec, settings: History, metrics: OwnMetrics) -> None:
        """``settings`` say how old and how far ahead a record may be."""
        self._codec = codec
        self._future = settings.future_seconds
        self._oldest = settings.raw_days * DAY_SECONDS
        self._records = metrics.counter("virtflow_history_records_total")
        self._skipped = metrics.counter("virtflow_history_skipped_records_total")

    def record(self, table: Table, value: bytes | None, arrived: float) -> Any | None:  # noqa: ANN401, the table's own record
        """The record in a message that arrived at the broker at ``arrived`` (Unix seconds), None where there is none worth a row."""
        self._records.labels(table=table.name).inc()
        if value is None:
            # The end of a key in a compacted topic: history keeps what was.
            self._skip(table, "tombstone", "")
            return None
        try:
            record = self._codec.decode(value, _EXPECTED[table.name])
        except UndecodableError as error:
            self._skip(table, error.reason.value, str(error))
            return None
        reason = self._unfit(table, moment_of(record), arrived)
        if reason:
            self._skip(table, reason, f"{reason}: {moment_of(record)}")
        return None if reason else record

    def repeated(self, table: Table) -> None:
        """Counts a record that is stored already."""
        self._skipped.labels(table=table.name, reason="repeated").inc()

    def _unfit(self, table: Table, moment: float, arrived: float) -> str:
        """Why a record of that time gets no row; "" when it does. Judged by the broker's clock, so that reading again judges alike."""
        if math.isnan(moment) or not EARLIEST_SECONDS <= moment <= LATEST_SECONDS:
            return "timeless"
        if moment > arrived + self._future:
            return "future"
        # Its day's samples are gone, and rolled up without them the day would be wrong.
        return "too_late" if table is SAMPLES and moment < time.time() - self._oldest else ""

    def _skip(self, table: Table, reason: str, why: str) -> None:
        self._skipped.labels(table=table.name, reason=reason).inc()
        if why:
            _LOG.warning("a record for %s is passed by: %s", table.name, why)
