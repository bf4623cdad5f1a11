"""The exported migrations, and the two options for metrics that exist only at times.

Without options a migration's metrics are exported while it runs and for three more of the VM's intervals, so that a scrape sees the
final numbers of even the shortest one. ``keep_last`` keeps them until the VM's next migration. ``always_export`` exports all of these
metrics for every VM, with the absent value where there is no real one; ``vm_migration_active`` is 0 then, because that is known.

    always_export  keep_last   never migrated      running             ended
    no             no          nothing             1, numbers          0, numbers, for three intervals
    no             yes         nothing             1, numbers          0, last numbers
    yes            no          0, absent values    1, numbers, absent  0, numbers for three intervals, then absent values
    yes            yes         0, absent values    1, numbers, absent  0, last numbers, absent
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan
from typing import Final

from msgspec import Struct

from virtflow.exporter.render.lines import LABEL_BYTES, Lines, label_text
from virtflow.schemas.catalogue.migration import MIGRATION_METRICS
from virtflow.schemas.jobs import Result
from virtflow.schemas.order import Freshness
from virtflow.schemas.ownership import handed_over
from virtflow.schemas.records import VmMigration

NEVER: Final = float("-inf")
INTERVALS_SHOWN: Final = 3
"""For how many of the VM's intervals the numbers of a migration are exported after its end."""

ACTIVE, INFO = "active", "info"
INFO_LABELS: Final = ("operation", "type", "source", "destination", "result")


class Options(Struct, frozen=True, gc=False):
    """The two options; ``absent`` is the text of the absent value. Label values are cut at ``label_bytes``."""

    always_export: bool = False
    absent: str = "NaN"
    keep_last: bool = False
    label_bytes: int = LABEL_BYTES


class MigrationText:
    """Renders migrations for the families that were chosen at start."""

    def __init__(self, names: Iterable[str], options: Options) -> None:
        """``names`` are the metrics to export; others are skipped."""
        wanted = frozenset(names)
        self.families: Final = tuple(metric for metric in MIGRATION_METRICS if metric.name in wanted)
        self.options: Final = options
        self._fields = tuple(metric.field for metric in self.families)
        self._prefixes = tuple(f"{metric.name}{{" for metric in self.families)

    def lines(self, migration: VmMigration | None, identity: str) -> Lines:
        """The lines of a VM's migration, or of none; "" where a value is absent and no absent value is exported."""
        absent = self.options.absent if self.options.always_export else ""
        texts = [_text(field, migration, identity, self.options.label_bytes) for field in self._fields]
        rendered = zip(self._fields, self._prefixes, texts, strict=True)
        return tuple(f"{prefix}{labels}}} {value or absent}\n" if value or absent else "" for field, prefix, (labels, value) in rendered)


def _text(field: str, migration: VmMigration | None, identity: str, label_bytes: int) -> tuple[str, str]:
    """A series' labels and its value as text, "" where there is none."""
    if field == ACTIVE:
        return identity, "1" if migration is not None and migration.result == Result.RUNNING else "0"
    if field == INFO:
        labels = label_text(((label, getattr(migration, label) if migration else "") for label in INFO_LABELS), label_bytes)
        return f"{identity},{labels}", "1" if migration else ""
    value = getattr(migration, field) if migration else -1
    if value < 0 or isnan(value):
        return identity, ""
    return identity, repr(value)


class _Entry:
    """A VM's newest migration: when it arrived, and its lines as they were last rendered."""

    __slots__ = ("arrived", "identity", "lines", "migration")

    def __init__(self, migration: VmMigration, arrived: float) -> None:
        self.migration = migration
        self.arrived = arrived
        self.identity = ""
        self.lines: Lines = ()


class Migrations:
    """The newest migration of every VM. They do not expire: the authoritative node depends on it however long ago the VM moved."""

    def __init__(self, text: MigrationText) -> None:
        """Empty."""
        self.text: Final = text
        self._known: dict[str, _Entry] = {}
        self.revision = 0
        """Grows with every change."""

    def take(self, record: VmMigration, arrived: float) -> Freshness:
        """Takes a migration; the higher revision is newer. ``arrived`` is on the fleet's clock."""
        known = self._known.get(record.uuid)
        if known is not None and record.revision <= known.migration.revision:
            return Freshness.DUPLICATE if record.revision == known.migration.revision else Freshness.STALE
        self._known[record.uuid] = _Entry(record, arrived)
        self.revision += 1
        return Freshness.NEW

    def forget(self, uuid: str) -> None:
        """Drops a VM's migration after a tombstone in the topic."""
        self._known.pop(uuid, None)
        self.revision += 1

    def forget_all(self) -> None:
        """Drops all migrations: the topic was deleted and created again."""
        self._known.clear()
        self.revision += 1

    def handed_over_since(self, uuid: str) -> float:
        """When the newest record of a hand-over of the VM arrived; minus infinity where there is none."""
        known = self._known.get(uuid)
        return known.arrived if known is not None and handed_over(known.migration) else NEVER

    def all(self) -> list[VmMigration]:
        """The newest migration of every VM that has one."""
        return [entry.migration for entry in self._known.values()]

    def newest(self, uuid: str) -> VmMigration | None:
        """The VM's newest migration."""
        known = self._known.get(uuid)
        return known.migration if known else None

    def lines(self, uuid: str, identity: str, interval: float, now: float) -> Lines:
        """The exported lines of the VM's migration at ``now``; () when there are none."""
        known = self._known.get(uuid)
        options = self.text.options
        if known is not None and (_running(known) or options.keep_last or now < known.arrived + INTERVALS_SHOWN * interval):
            if known.identity != identity or not known.lines:
                known.identity, known.lines = identity, self.text.lines(known.migration, identity)
            return known.lines
        return self.text.lines(None, identity) if options.always_export else ()


def _running(known: _Entry) -> bool:
    return known.migration.result == Result.RUNNING
