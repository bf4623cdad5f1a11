"""The tables: one row each, with their columns. Those that the catalogue names come from its rows.

``samples`` holds one row per VM and sample (``kind`` vm) and one per device of it (``vcpu``, ``network``, ``block``, with the
device's name or number in ``device``, and ``filesystem``, see ``device_of``); a column is named after its metric and is null where the metric is absent or not of that
kind. Flat columns compress by difference, which lists of devices within a row do not, every tool reads them, and one row
still means one commit. ``hourly`` and ``daily`` have a row per VM or device and period. ``counters`` is the upkeep's own: where the
counters of each VM or device and node stood after an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_type_hints

import pyarrow as pa
from msgspec import Struct

from virtflow.schemas.catalogue.metrics import of_agent, of_libvirt
from virtflow.schemas.catalogue.types import Guest, Libvirt, Metric, Rollup, Scope
from virtflow.schemas.records import GuestFilesystemMetrics, GuestMetrics, VmEvent, VmInventory, VmMigration
from virtflow.schemas.states import STATES
from virtflow.schemas.text import REPLACEMENT
from virtflow.schemas.topics import EVENTS, INVENTORY, METRICS, MIGRATIONS, Topic

LAYOUT_VERSION: Final = 1
"""Written into every table; a table of a newer one is refused."""

TIME: Final = pa.timestamp("us", tz="UTC")
SECONDS: Final = pa.decimal128(18, 6)
"""Seconds of a sample, to the microsecond: stored as whole numbers they compress by difference, and every reader knows them, which is
not so of the encodings that do the same for doubles."""
KINDS: Final[dict[Scope, str]] = {
    Scope.VM: "vm",
    Scope.VCPU: "vcpu",
    Scope.NETWORK: "network",
    Scope.BLOCK: "block",
    Scope.FILESYSTEM: "filesystem",
}
LABEL_SEPARATOR: Final = "\t"
"""Between the labels of a device that has several, in its column ``device``."""
RATED: Final = frozenset({"vm_cpu_seconds_total"})
"""Counters of which a period also keeps the rate: reports tell their peaks."""
VCPU_STATES: Final = ("offline", "running", "blocked")
"""Source: libvirt's ``virVcpuState``."""


@dataclass(frozen=True, slots=True)
class Column:
    """A metric's column: its catalogue row, the kind of row that has it, its Arrow type in ``samples``, and whether its counter is the guest's.

    A guest's counters outlive a migration, the hypervisor's start again with the VM's new process.
    """

    metric: Metric
    kind: str
    type: pa.DataType
    of_guest: bool

    @property
    def name(self) -> str:
        """The metric's name, in SQL as in PromQL; where a label tells several values of it apart, the value's own."""
        return self.metric.column

    @property
    def rollup(self) -> Rollup:
        """What an hour keeps of it."""
        return self.metric.rollup

    @property
    def number(self) -> pa.DataType:
        """The type of its values in roll-ups."""
        return pa.float64() if self.type == SECONDS else self.type

    @property
    def rated(self) -> bool:
        """Whether a period keeps its rate too."""
        return self.name in RATED

    @property
    def states(self) -> tuple[str, ...]:
        """The words for its states, by number."""
        return STATES if self.name == "vm_state" else VCPU_STATES

    def rolled(self) -> tuple[tuple[str, pa.DataType], ...]:
        """Names and types of its columns in ``hourly`` and ``daily``."""
        match self.rollup:
            case Rollup.SPREAD:
                extremes = ((f"{self.name}_min", self.number), (f"{self.name}_max", self.number))
                return ((f"{self.name}_avg", pa.float64()), *extremes, (f"{self.name}_known_seconds", pa.float64()))
            case Rollup.INCREASE:
                rate = ((f"{self.name}_rate", pa.float64()),) if self.rated else ()
                return ((f"{self.name}_increase", pa.float64()), *rate, (f"{self.name}_last", self.number))
            case Rollup.STATES:
                minutes = tuple((f"{self.name}_{word}_minutes", pa.float64()) for word in self.states)
                return (*minutes, (f"{self.name}_last", self.number))
            case Rollup.LAST:
                return ((f"{self.name}_last", self.number),)
            case Rollup.NONE:
                return ()


def device_of(labels: Iterable[str]) -> str:
    """What tells a device with these labels' values from the others of its VM: they, separated by tabs; a tab within one is replaced."""
    return LABEL_SEPARATOR.join(value.replace(LABEL_SEPARATOR, REPLACEMENT) for value in labels)


def values_of_device(labels: Sequence[str], device: str) -> dict[str, str]:
    """A device's labels by its column ``device``: one is all of it, several are divided by tabs."""
    return dict(zip(labels, device.split(LABEL_SEPARATOR) if len(labels) > 1 else [device], strict=False))


def _column(metric: Metric, source: Libvirt | Guest, kind: str) -> Column:
    if isinstance(source, Guest):
        return Column(metric, kind, _AGENT_TYPES[_AGENT_HINTS[source.scope][source.attribute]], of_guest=True)
    kind_of = SECONDS if source.conversion.to_float else pa.int64()
    return Column(metric, kind, kind_of, source.field.startswith("balloon."))


_AGENT_HINTS: Final = {Scope.VM: get_type_hints(GuestMetrics), Scope.FILESYSTEM: get_type_hints(GuestFilesystemMetrics)}
_AGENT_TYPES: Final = {int: pa.int64(), float: pa.float64()}


def _of_scope(scope: Scope) -> Iterator[tuple[Metric, Libvirt | Guest]]:
    yield from of_libvirt(scope)
    yield from of_agent(scope)


COLUMNS: Final[tuple[Column, ...]] = tuple(
    _column(metric, source, kind) for scope, kind in KINDS.items() for metric, source in _of_scope(scope)
)
"""Every metric of a sample, in the catalogue's order within its kind."""

COLUMN_OF: Final[dict[str, Column]] = {column.name: column for column in COLUMNS}


def columns_of(kind: str) -> tuple[Column, ...]:
    """The columns that rows of ``kind`` fill."""
    return tuple(column for column in COLUMNS if column.kind == kind)


_DAY: Final = ("day", pa.date32())
_SAMPLE_KEY: Final = (
    _DAY,
    ("time", TIME),
    ("uuid", pa.string()),
    ("kind", pa.string()),
    ("device", pa.string()),
    ("name", pa.string()),
    ("node", pa.string()),
)
_SAMPLES: Final = pa.schema(
    [
        *_SAMPLE_KEY,
        ("boot_id", pa.string()),
        ("sequence", pa.int64()),
        ("interval_seconds", pa.float64()),
        ("monitor_time", TIME),
        *((column.name, column.type) for column in COLUMNS),
    ]
)
_ROLLED: Final = pa.schema(
    [
        *_SAMPLE_KEY,
        ("first_time", TIME),
        ("last_time", TIME),
        ("nodes", pa.int64()),
        ("samples", pa.int64()),
        ("monitor_samples", pa.int64()),
        ("covered_seconds", pa.float64()),
        ("coverage", pa.float64()),
        ("monitor_covered_seconds", pa.float64()),
        ("monitor_coverage", pa.float64()),
        *(named for column in COLUMNS for named in column.rolled()),
    ]
)

_COUNTERS: Final = pa.schema(
    [
        *(field for field in _SAMPLE_KEY if str(field[0]) != "name"),
        ("last_time", TIME),
        ("claim_time", TIME),
        ("vm_state", pa.int64()),
        ("vm_state_reason", pa.int64()),
        ("interval_seconds", pa.float64()),
        ("ran_time", TIME),
        ("ran_seconds", pa.float64()),
        ("since", TIME),
        ("past_unknown", pa.int64()),
        *(
            named
            for column in COLUMNS
            if column.rollup is Rollup.INCREASE
            for named in ((column.name, column.number), (f"{column.name}_time", TIME))
        ),
    ]
)
"""``time`` is the end of the hour. ``last_time`` is the last sample's that counted, ``claim_time`` the last one's at all, with its state
and interval; ``ran_time`` the last one's that said the VM runs, with its interval; ``since`` the first one's of the process, null where
the process is the first one known; ``past_unknown`` is 1 where it is not known that its counters began at 0 then, else null. A
counter's ``_time`` is null where it was read at ``last_time``."""


def _of_record(record: type[Struct], moment: str = "") -> pa.Schema:
    """Columns after a record's fields: its ``moment`` becomes ``time``, lists and maps become JSON."""
    hints = {name: hint for name, hint in get_type_hints(record).items() if name not in {moment, "part"}}
    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    return pa.schema([_DAY, ("time", TIME), *((name, types.get(hint, pa.string())) for name, hint in hints.items())])


_EVENTS: Final = _of_record(VmEvent, "time")
_MIGRATIONS: Final = _of_record(VmMigration)
_INVENTORY: Final = _of_record(VmInventory, "collected")


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns, what order its files are sorted in, and the topic it is written from (None: made of another table).

    ``internal`` tables are the upkeep's own: no query sees them.
    """

    name: str
    schema: pa.Schema
    about: str
    order: tuple[str, ...]
    topic: Topic | None = None
    internal: bool = False


SAMPLES: Final = Table(
    "samples", _SAMPLES, "Every sample as it came: one row per VM, and one per device", ("kind", "uuid", "device", "time"), METRICS
)
EVENT_ROWS: Final = Table("events", _EVENTS, "What happened to VMs, and polls of their jobs", ("uuid", "time"), EVENTS)
MIGRATION_ROWS: Final = Table(
    "migrations",
    _MIGRATIONS,
    "Migrations, one row per change of what is known; the newest row of an id holds",
    ("uuid", "time"),
    MIGRATIONS,
)
INVENTORY_ROWS: Final = Table(
    "inventory", _INVENTORY, "What a VM was from a time on: a row holds until its next one", ("uuid", "time"), INVENTORY
)
HOURLY: Final = Table("hourly", _ROLLED, "One row per VM or device and hour", ("kind", "uuid", "device", "time"))
DAILY: Final = Table("daily", _ROLLED, "One row per VM or device and day", ("kind", "uuid", "device", "time"))
COUNTERS: Final = Table(
    "counters",
    _COUNTERS,
    "Where the counters of each VM or device and node stood after an hour",
    ("kind", "uuid", "device", "node", "time"),
    internal=True,
)
FORGOTTEN: Final = Table(
    "forgotten",
    pa.schema(
        [
            _DAY,
            ("time", TIME),
            ("kind", pa.string()),
            ("subject_sha256", pa.string()),
            ("rows", pa.int64()),
            ("rows_by_table", pa.string()),
            ("user", pa.string()),
            ("run", pa.string()),
            ("outcome", pa.string()),
        ]
    ),
    "Runs of `history forget`, begun and ended: SHA-256 of KIND:NAME as it was given, and how many rows of each table went",
    ("time",),
)

KIND_OF: Final = {name: column.kind for column in COLUMNS for name in (column.name, *(rolled for rolled, _ in column.rolled()))}
"""The kind of row that has a metric's column, of samples and of roll-ups; the columns that every kind has are not in it."""


def kind_columns(table: Table, kind: str) -> list[str]:
    """The columns that rows of a kind fill; all where a table has no kinds ("")."""
    return [name for name in table.schema.names if not kind or KIND_OF.get(name, kind) == kind]


TABLES: Final = (SAMPLES, HOURLY, DAILY, COUNTERS, EVENT_ROWS, MIGRATION_ROWS, INVENTORY_ROWS, FORGOTTEN)
WRITTEN: Final = tuple(table for table in TABLES if table.topic is not None)
TABLE_OF: Final = {table.name: table for table in TABLES}
