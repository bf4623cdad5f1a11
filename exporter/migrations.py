"""The migrations that are shown, and the two options for metrics that exist only now and then.

Without options a migration's metrics are there while it runs, and three of the VM's intervals longer, so that a scrape sees the
final numbers of the shortest one. ``keep_last`` leaves them there until the VM's next migration. ``always_export`` gives every VM
every one of these metrics, with the absent value where there is no real one: ``vm_migration_active`` is 0 then, for that is known.

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
"""For how many of the VM's intervals the numbers of a migration stay after its end."""

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
        """``names`` are the metrics to export; others are passed by."""
        wanted = frozenset(names)
        self.families: Final = tuple(metric for metric in MIGRATION_METRICS if metric.name in wanted)
        self.options: Final = options
        self._fields = tuple(metric.field for metric in self.families)
        self._prefixes = tuple(f"{metric.name}{{" for metric in self.families)

    def lines(self, migration: VmMigration | None, identity: str) -> Lines:
        """The lines of a VM's migration, or of none: "" where a value is absent and is not to be exported as such."""
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


class _Known:
    """A VM's newest migration: when it arrived, and its lines as they were last rendered."""

    __slots__ = ("arrived", "identity", "lines", "migration")

    def __init__(self, migration: VmMigration, arrived: float) -> None:
        self.migration = migration
        self.arrived = arrived
        self.identity = ""
        self.lines: Lines = ()


class Migrations:
    """The newest migration of every VM. They do not expire: who speaks for a VM is to be known however long ago it moved."""

    def __init__(self, text: MigrationText) -> None:
        """Nothing is known."""
        self.text: Final = text
        self._known: dict[str, _Known] = {}

    def take(self, record: VmMigration, arrived: float) -> Freshness:
        """Takes a migration; the higher revision is newer. ``arrived`` is on the fleet's clock."""
        known = self._known.get(record.uuid)
        if known is not None and record.revision <= known.migration.revision:
            return Freshness.DUPLICATE if record.revision == known.migration.revision else Freshness.STALE
        self._known[record.uuid] = _Known(record, arrived)
        return Freshness.NEW

    def forget(self, uuid: str) -> None:
        """The topic says that there is none any more."""
        self._known.pop(uuid, None)

    def forget_all(self) -> None:
        """The topic has been made anew: what it said before is void."""
        self._known.clear()

    def since(self, uuid: str) -> float:
        """When the newest word of a hand-over of the VM arrived; before all time where there is none."""
        known = self._known.get(uuid)
        return known.arrived if known is not None and handed_over(known.migration) else NEVER

    def of(self, uuid: str) -> VmMigration | None:
        """The VM's newest migration."""
        known = self._known.get(uuid)
        return known.migration if known else None

    def lines(self, uuid: str, identity: str, interval: float, now: float) -> Lines:
        """What is shown of the VM's migration at ``now``; () when nothing is."""
        known = self._known.get(uuid)
        options = self.text.options
        if known is not None and (_running(known) or options.keep_last or now < known.arrived + INTERVALS_SHOWN * interval):
            if known.identity != identity or not known.lines:
                known.identity, known.lines = identity, self.text.lines(known.migration, identity)
            return known.lines
        return self.text.lines(None, identity) if options.always_export else ()


def _running(known: _Known) -> bool:
    return known.migration.result == Result.RUNNING
