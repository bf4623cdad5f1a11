"""From a remote_read query to series: which metrics and VMs, from which tier, under the names and labels of ``/metrics``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.authority import HOLDS_SECONDS, OWNERSHIP, not_authoritative, without
from virtflow.history.maintenance.kept import between
from virtflow.history.maintenance.rollup import DAY_SECONDS, HOUR_SECONDS
from virtflow.history.query.resolution import DAYS, HOURS, RAW, Tier
from virtflow.history.remote_read.protocol.wire import Asked, Match, Matcher, Series
from virtflow.history.remote_read.reading.allowance import Allowance, LimitError
from virtflow.history.remote_read.reading.labels import (
    INFO,
    LABELS_OF_KIND,
    NAMES,
    STATE_INFO,
    Labels,
    Told,
    all_satisfied,
    exported_name,
    foreign_labels,
    labels_of,
    matching,
    words_of,
)
from virtflow.history.remote_read.reading.missing import missing_at
from virtflow.history.remote_read.reading.resample import LATEST_MS, Sight
from virtflow.history.remote_read.reading.series import NEVER, Rows, milliseconds, raw_series, rolled_series
from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import translated
from virtflow.history.storage.table_schemas import COLUMN_OF, INVENTORY_ROWS, SAMPLES, Table, values_of_device
from virtflow.runtime.settings import Settings
from virtflow.schemas.catalogue.metrics import INVENTORY_LABELS
from virtflow.schemas.errors import InputError
from virtflow.schemas.states import reason_word, state_word

STATE, REASON = "vm_state", "vm_state_reason"
RAW_DAYS: Final = 2
"""Longer ranges with a step of an hour or more are answered from roll-ups."""
STEPS: Final = 1_000_000
"""Prometheus itself answers at most 11,000 points a series; a subquery may look at more."""
DAYS_FROM: Final = 62
"""Ranges of so many days with a step of a day or more are answered from daily rows."""

Numbers = np.ndarray[Any, np.dtype[Any]]


class UnknownLabelError(InputError):
    """A query for a label that no series of ours has: Prometheus shows the text as a warning beside its own samples."""

    def __init__(self, labels: Sequence[str]) -> None:
        """``labels`` are their names."""
        names = ", ".join(labels)
        super().__init__(
            f"no series of the history has the label {names}; where it is one of Prometheus' external_labels, or of its scrape, set "
            "filter_external_labels: false in remote_read, or give it with history.serve_labels"
        )
        self.labels: Final = tuple(labels)


class Reader:
    """Answers queries from the tables as they are at each query."""

    def __init__(self, store: Store, settings: Settings) -> None:
        """Opens nothing yet."""
        self._store = store
        self._settings = settings

    def read(self, asked: Asked, allowance: Allowance | None = None) -> list[Series]:
        """The series of one query in the order of their labels, taken from a request's ``allowance``.

        Raises ``LimitError``, ``TookTooLongError``, ``UnknownLabelError`` or ``StorageError``.
        """
        return self._reading(allowance).read(asked)

    def values(self, label: str, start: float, end: float, allowance: Allowance | None = None) -> list[str]:
        """The values that a label of VMs had between two times (Unix seconds), sorted; [] for one that is no column of VMs'."""
        return self._reading(allowance).values(label, *(max(0.0, min(at, LATEST_MS / 1000)) for at in (start, end)))

    def had(self, label: str, value: str, allowance: Allowance | None = None) -> bool:
        """Whether a series has ever had a value of a label, as far as the tables go back."""
        return self._reading(allowance).had(label, value)

    def _reading(self, allowance: Allowance | None) -> _Reading:
        return _Reading(self._store, self._settings, allowance or Allowance(self._settings.history))


class _Reading:
    """One query: it opens each table once."""

    def __init__(self, store: Store, settings: Settings, allowance: Allowance) -> None:
        self._store = store
        self._allowance = allowance
        self._datasets: dict[str, Any] = {}
        self._all = settings
        self._settings = settings.history
        self._labels = tuple(settings.exporter.vm_labels)

    def read(self, asked: Asked) -> list[Series]:
        sight = Sight.of(asked)
        self._within_limits(sight)
        if sight.end < sight.start:
            return []
        matches = matching(asked.matchers)
        names = [name for name in NAMES if matches("__name__", exported_name(name))]
        if not names:
            return []
        if foreign := foreign_labels(self._all, asked.matchers):
            raise UnknownLabelError(foreign)
        if not all(matches(label, value) for label, value in self._settings.serve_labels.items()):
            return []
        tier = tier_of(sight, time.time(), self._settings.raw_days, self._settings.hourly_days)
        uuids = self._uuids(asked.matchers, sight)
        if uuids is not None and not uuids:
            return []
        found: list[Series] = []
        for name in names:
            for series in self._of_metric(name, tier, sight, uuids):
                self._allowance.check()
                if all_satisfied(asked.matchers, dict(series.labels)):
                    self._allowance.take(len(series.times))
                    found.append(series)
        return sorted(found, key=lambda series: series.labels)

    def values(self, label: str, start: float, end: float) -> list[str]:
        if label in {"uuid", "name", *INVENTORY_LABELS}:
            return sorted({str(value) for (value,) in self._distinct(INVENTORY_ROWS, [label], None) if value})
        kinds = [kind for kind, labels in LABELS_OF_KIND.items() if label in labels]
        if not kinds:
            return []
        of_kinds = pc.field("kind").isin(pa.array(kinds, pa.string())) & between("time", start, end)
        devices = self._distinct(HOURS.table, ["kind", "device"], of_kinds)
        return sorted({values_of_device(LABELS_OF_KIND[kind], device or "").get(label, "") for kind, device in devices} - {""})

    def had(self, label: str, value: str) -> bool:
        if label in self._settings.serve_labels:
            return self._settings.serve_labels[label] == value
        if value in words_of(label) or value in self.values(label, 0.0, LATEST_MS / 1000):
            return True
        if label not in {"uuid", "name"}:
            return False
        # VMs may have no inventory: days have all that were, hours and samples what is not in them yet.
        return any(self._distinct(table, [label], pc.field(label) == value) for table in (DAYS.table, HOURS.table, SAMPLES))

    def _distinct(self, table: Table, columns: Sequence[str], wanted: Any) -> set[tuple[Any, ...]]:  # noqa: ANN401, an Arrow expression
        """The columns' different values, from one read: the inventory has what changes rarely, the roll-ups have the devices."""
        if not self._store.exists(table):
            return set()
        rows = self._rows(table, columns, wanted).group_by(list(columns)).aggregate([])
        return set(zip(*(rows.column(name).to_pylist() for name in columns), strict=True))

    def _within_limits(self, sight: Sight) -> None:
        days = (sight.end - sight.start) / 1000 / DAY_SECONDS
        if days > self._settings.serve_days:
            raise LimitError(f"a range of {days:.0f} days, at most {self._settings.serve_days} are answered (history.serve_days)")
        if sight.step > 0 and (sight.end - sight.start) // sight.step > STEPS:
            raise LimitError(f"more than {STEPS} steps: ask for a longer step or a shorter range")

    def _uuids(self, matchers: Sequence[Matcher], sight: Sight) -> list[str] | None:
        """The UUIDs that can match, so that only their rows are read; None for all."""
        exact = [matcher.value for matcher in matchers if matcher.name == "uuid" and matcher.how is Match.EQUAL]
        if exact:
            return exact[:1]
        named = [matcher for matcher in matchers if matcher.name in {"uuid", "name"} and matcher.how is not Match.NOT_EQUAL]
        if not named:
            return None
        matches = matching(named)
        found = set()
        for uuid, name in self._named(sight):
            self._allowance.check()
            if matches("uuid", uuid) and matches("name", name or ""):
                found.add(uuid)
        return sorted(found)

    def _named(self, sight: Sight) -> set[tuple[str, str]]:
        """UUIDs and names of all VMs in sight; of the samples only those that are not rolled up yet are looked at."""
        start, end = sight.start / 1000 - DAY_SECONDS, sight.end / 1000 + HOUR_SECONDS
        wanted: dict[Table, Any] = {INVENTORY_ROWS: None}
        fresh = start
        if self._store.exists(HOURS.table):
            wanted[HOURS.table] = between("time", start, end) & (pc.field("kind") == "vm")
            fresh = max([start, *(file.last for file in self._store.open(HOURS.table).files())])
        if start < time.time() - self._settings.hourly_days * DAY_SECONDS:
            wanted[DAYS.table] = between("time", start, end) & (pc.field("kind") == "vm")
        if fresh < end:
            wanted[SAMPLES] = between("time", fresh, end) & (pc.field("kind") == "vm")
        names: set[tuple[str, str]] = set()
        for table, within in wanted.items():
            names |= self._distinct(table, ["uuid", "name"], within)
        return names

    def _rows(self, table: Table, columns: Sequence[str], wanted: Any, *, samples: bool = False) -> pa.Table:  # noqa: ANN401, Arrow expressions
        """Rows, within the limit on time, and where they are to become ``samples`` within that on samples."""
        with translated(str(self._store)):
            if table.name not in self._datasets:
                self._datasets[table.name] = self._store.open(table).dataset()
            scanner = self._datasets[table.name].scanner(columns=list(columns), filter=wanted)
            return pa.Table.from_batches(self._bounded(scanner.to_batches(), samples=samples), scanner.projected_schema)

    def _bounded(self, batches: Iterable[pa.RecordBatch], *, samples: bool) -> Iterator[pa.RecordBatch]:
        count = 0
        for batch in batches:
            count += batch.num_rows
            self._allowance.rows(count if samples else 0)
            yield batch

    def _of_metric(self, name: str, tier: Tier, sight: Sight, uuids: list[str] | None) -> Iterator[Series]:
        """The series of one metric; its rows are read whole, within the limit on samples."""
        kind = COLUMN_OF[name].kind if name in COLUMN_OF else "vm"
        wanted = (pc.field("kind") == kind) & between("time", *_bounds(tier, sight))
        if uuids is not None:
            wanted &= pc.field("uuid").isin(pa.array(uuids, pa.string()))
        if not self._store.exists(tier.table):
            return
        rows = self._rows(tier.table, ["time", "uuid", "device", "name", *_sources(name, tier)], wanted, samples=True)
        if tier is RAW:
            rows = self._speaking(rows)
        rows = rows.sort_by([(key, "ascending") for key in ("uuid", "device", "time")])
        for found in self._label_sets(name, rows, sight.end if tier is RAW and kind != "vm" else None):
            if name == INFO and not {label for label, _ in found.labels}.intersection(INVENTORY_LABELS):
                continue  # nothing is known to be told
            series = raw_series(name, sight, found) if tier is RAW else rolled_series(name, tier, sight, found)
            if len(series.times):
                yield series

    def _speaking(self, rows: pa.Table) -> pa.Table:
        """Without the samples of a node where the VM only arrives or is gone, as everywhere."""
        nodes = rows.group_by("uuid").aggregate([("node", "count_distinct")])
        shared = nodes.filter(pc.greater(nodes.column("node_count_distinct"), 1)).column("uuid")
        if not len(shared):
            return rows
        of_vm = between("time", *_seconds(rows.column("time"))) & (pc.field("kind") == "vm") & pc.field("uuid").isin(shared)
        return without(rows, not_authoritative(self._rows(SAMPLES, OWNERSHIP, of_vm)))

    def _label_sets(self, name: str, rows: pa.Table, until: int | None) -> Iterator[Rows]:
        """The rows of each label set, which a VM may come back to: Prometheus refuses a label set that is there twice.

        Labels change with VM, device, name, and for info metrics with what is told; ``rows`` are sorted by VM, device and time. With ``until``, the
        last moment that matters, they are samples of devices, which end where their VM is sampled without them.
        """
        if not rows.num_rows:
            return
        keys = [_coded(rows.column(key)) for key in ("uuid", "device", "name")]
        codes, told = self._told(name, rows, keys[0])
        changes = np.zeros(rows.num_rows - 1, bool)
        for column in (*(key for key, _ in keys), codes):
            changes |= column[1:] != column[:-1]
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
        ends = np.append(starts[1:], rows.num_rows)
        goes_on = self._goes_on(rows, keys, ends)
        if until is not None:
            missing = missing_at(rows, keys[0], keys[1], until, self._of_vms)
            goes_on = np.where(missing < NEVER, missing, goes_on)
        sets: dict[Labels, list[tuple[int, int]]] = {}
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            self._allowance.check()
            uuid, device, vm = (words[column[start]] for column, words in keys)
            sets.setdefault(labels_of(self._all, name, (uuid, device, vm), told[codes[start]]), []).append((start, end))
        for labels, pieces in sets.items():
            yield _one_per_moment(labels, rows, pieces, goes_on)

    def _of_vms(self, uuids: list[str], start: int, end: int) -> pa.Table:
        """The samples of VMs that count, in milliseconds from and to."""
        of_vms = (pc.field("kind") == "vm") & pc.field("uuid").isin(pa.array(uuids, pa.string()))
        found = self._rows(SAMPLES, ["uuid", "time", "node"], between("time", start / 1000, end / 1000 + 1) & of_vms)
        if len(found.column("node").unique()) <= 1:
            return found
        # A node's word holds for a while: which ones count is told from earlier on.
        vms = self._rows(SAMPLES, OWNERSHIP, between("time", start / 1000 - HOLDS_SECONDS, end / 1000 + 1) & of_vms)
        return without(vms, not_authoritative(vms))

    def _goes_on(self, rows: pa.Table, keys: Sequence[tuple[Numbers, list[Any]]], ends: Numbers) -> Numbers:
        """For each row that ends a piece, when another one of the same VM and device goes on: see ``Rows``."""
        goes_on = np.full(rows.num_rows, -1, np.int64)
        times, (uuids, _), (devices, _) = milliseconds(rows), keys[0], keys[1]
        goes_on[-1] = NEVER
        last = ends[:-1] - 1
        same = (uuids[last] == uuids[last + 1]) & (devices[last] == devices[last + 1])
        goes_on[last] = np.where(same, times[last + 1], NEVER)
        return goes_on

    def _told(self, name: str, rows: pa.Table, uuids: tuple[Numbers, list[Any]]) -> tuple[Numbers, list[Labels]]:
        """The labels beyond VM and device: a number for each row, and the labels by number."""
        if name == STATE_INFO:
            return _states(rows)
        more = [label for label in self._labels if label != "name"]
        if name != INFO and not more:
            return np.zeros(rows.num_rows, np.int64), [()]
        told = self._inventory(uuids[1], INVENTORY_LABELS if name == INFO else more)
        times = rows.column("time").cast(pa.int64()).to_numpy()
        codes = np.empty(rows.num_rows, np.int64)
        for start, end in pairwise([0, *(np.flatnonzero(np.diff(uuids[0])) + 1).tolist(), rows.num_rows]):
            codes[start:end] = told.at(uuids[1][uuids[0][start]], times[start:end])
        return codes, told.labels

    def _inventory(self, uuids: Sequence[str], labels: Sequence[str]) -> Told:
        if not self._store.exists(INVENTORY_ROWS):
            return Told(None, labels)
        wanted = pc.field("uuid").isin(pa.array(uuids, pa.string()))
        return Told(self._rows(INVENTORY_ROWS, ["uuid", "time", *labels], wanted), labels)


def tier_of(sight: Sight, now: float, raw_days: int, hourly_days: int) -> Tier:
    """The tier that answers: samples while they are kept and the range is short or the step fine, else a roll-up."""
    start, span = sight.start / 1000, (sight.end - sight.start) / 1000
    coarse = sight.step / 1000
    fits_hours = coarse >= HOUR_SECONDS and (not sight.window or sight.window >= 2 * HOUR_SECONDS * 1000)
    fits_days = coarse >= DAY_SECONDS and (not sight.window or sight.window >= 2 * DAY_SECONDS * 1000)
    if start >= now - raw_days * DAY_SECONDS and not (fits_hours and span > RAW_DAYS * DAY_SECONDS):
        return RAW
    if start >= now - hourly_days * DAY_SECONDS and not (fits_days and span > DAYS_FROM * DAY_SECONDS):
        return HOURS
    return DAYS


def _one_per_moment(labels: Labels, rows: pa.Table, pieces: Sequence[tuple[int, int]], goes_on: Numbers) -> Rows:
    """The pieces of one label set as one; of several rows of one moment the last."""
    if len(pieces) == 1:
        start, end = pieces[0]
        found, on = rows.slice(start, end - start), goes_on[start:end]
    else:
        found = pa.concat_tables([rows.slice(start, end - start) for start, end in pieces])
        on = np.concatenate([goes_on[start:end] for start, end in pieces])
    times = milliseconds(found)
    if np.all(times[1:] > times[:-1]):
        return Rows(labels, found, on)
    order = np.argsort(times, kind="stable")
    order = order[np.append(times[order][1:] != times[order][:-1], True)]
    return Rows(labels, found.take(pa.array(order)), on[order])


def _coded(column: pa.ChunkedArray) -> tuple[Numbers, list[Any]]:
    """A column of words as numbers, and the words by number; null is a word like others."""
    encoded = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64), encoded.dictionary.to_pylist()


def _states(rows: pa.Table) -> tuple[Numbers, list[Labels]]:
    """State and its reason at each row, which stand in the last two columns."""
    absent = -1
    state, reason = (pc.fill_null(rows.column(name).cast(pa.int64()), absent).to_numpy() for name in rows.schema.names[-2:])
    pairs, codes = np.unique(np.stack([state, reason]), axis=1, return_inverse=True)
    told: list[Labels] = [(("reason", reason_word(int(s), int(r))), ("state", state_word(int(s)))) for s, r in pairs.T]
    return np.asarray(codes).reshape(-1), told


def _sources(name: str, tier: Tier) -> list[str]:
    """The columns that a metric is made of, in a tier."""
    if tier is RAW:
        values = [STATE, REASON] if name == STATE_INFO else [] if name == INFO else [name]
        return ["node", "boot_id", "sequence", "interval_seconds", *values]
    if name == STATE_INFO:
        return [f"{STATE}_last", f"{REASON}_last"]
    return [] if name == INFO else [column for column, _ in COLUMN_OF[name].rolled() if not column.endswith("_minutes")]


def _bounds(tier: Tier, sight: Sight) -> tuple[float, float]:
    """From and to in Unix seconds, with the rows that the first and last moments lie in."""
    return sight.start / 1000 - max(tier.seconds, 1), sight.end / 1000 + 1


def _seconds(times: pa.ChunkedArray) -> tuple[float, float]:
    bounds = pc.min_max(times).as_py()
    return bounds["min"].timestamp(), bounds["max"].timestamp() + 1
