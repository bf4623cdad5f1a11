"""From a remote_read query to series: which metrics and VMs, from which tier, under the names and labels of ``/metrics``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.maintenance.authority import OWNERSHIP, not_authoritative, without
from virtflow.history.maintenance.kept import between
from virtflow.history.maintenance.rollup import DAY_SECONDS, HOUR_SECONDS
from virtflow.history.query.resolution import DAYS, HOURS, RAW, Tier
from virtflow.history.remote_read.resample import STALE, Sight, counter, gauge
from virtflow.history.remote_read.wire import Asked, Match, Matcher, ProtocolError, Series
from virtflow.history.storage.delta import Store, translated
from virtflow.history.storage.table_schemas import COLUMN_OF, COLUMNS, INVENTORY_ROWS, SAMPLES, Column
from virtflow.runtime.settings import Settings
from virtflow.schemas.catalogue.metrics import INVENTORY_LABELS
from virtflow.schemas.catalogue.types import Rollup
from virtflow.schemas.errors import InputError
from virtflow.schemas.states import reason_word, state_word

INFO, STATE_INFO, STATE, REASON = "vm_info", "vm_state_info", "vm_state", "vm_state_reason"
NAMES: Final = (*(column.name for column in COLUMNS), INFO, STATE_INFO)
RAW_DAYS: Final = 2
"""Longer ranges with a step of an hour or more are answered from roll-ups."""
STALE_INTERVALS: Final = 3
STEPS: Final = 1_000_000
"""Prometheus itself answers at most 11,000 points a series; a subquery may look at more."""
LABEL_LENGTH: Final = 256
_UNSAFE: Final = re.compile("[\0\ud800-\udfff]")

Labels = tuple[tuple[str, str], ...]
Numbers = np.ndarray[Any, np.dtype[Any]]


class LimitError(InputError):
    """A query beyond the limits; the text says which."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One series' rows among sorted ones: from and to, its labels, and whether another series of the VM goes on after it."""

    start: int
    end: int
    labels: Labels


class Reader:
    """Answers queries from the tables as they are at each query."""

    def __init__(self, store: Store, settings: Settings) -> None:
        """Opens nothing yet."""
        self._store = store
        self._settings = settings.history
        self._labels = tuple(settings.exporter.vm_labels)

    def read(self, asked: Asked) -> list[Series]:
        """The series of one query in the order of their labels; raises ``LimitError`` or ``StorageError``."""
        sight = Sight.of(asked)
        days = (sight.end - sight.start) / 1000 / DAY_SECONDS
        if days > self._settings.serve_days:
            raise LimitError(f"a range of {days:.0f} days, at most {self._settings.serve_days} are answered (history.serve_days)")
        if sight.step > 0 and (sight.end - sight.start) // sight.step > STEPS:
            raise LimitError(f"more than {STEPS} steps: ask for a longer step or a shorter range")
        matches = matching(asked.matchers)
        names = [name for name in NAMES if matches("__name__", COLUMN_OF[name].metric.name if name in COLUMN_OF else name)]
        if not names or not _constant(self._settings.serve_labels, matches):
            return []
        found: list[Series] = []
        tier = tier_of(sight, time.time(), self._settings.raw_days, self._settings.hourly_days)
        uuids = self._uuids(asked.matchers, sight)
        for name in names:
            of_name = self._of_metric(name, tier, sight, uuids)
            found += [series for series in of_name if all(_matches(matcher, dict(series.labels)) for matcher in asked.matchers)]
            if len(found) > self._settings.serve_series:
                raise LimitError(f"more than {self._settings.serve_series} series; name VMs, or raise history.serve_series")
        if (samples := sum(len(series.times) for series in found)) > self._settings.serve_samples:
            raise LimitError(f"{samples} samples, at most {self._settings.serve_samples} are returned (history.serve_samples)")
        return sorted(found, key=lambda series: series.labels)

    def _uuids(self, matchers: Sequence[Matcher], sight: Sight) -> list[str] | None:
        """The UUIDs that can match, so that only their rows are read; None for all."""
        exact = [matcher.value for matcher in matchers if matcher.name == "uuid" and matcher.how is Match.EQUAL]
        if exact:
            return exact[:1]
        named = [matcher for matcher in matchers if matcher.name in {"uuid", "name"} and matcher.how is not Match.NOT_EQUAL]
        if not named:
            return None
        matches = matching(named)
        names: set[tuple[str, str]] = set()
        for table in (HOURS.table, INVENTORY_ROWS):
            if self._store.exists(table):
                within = (
                    between("time", sight.start / 1000 - DAY_SECONDS, sight.end / 1000 + HOUR_SECONDS) if table is HOURS.table else None
                )
                rows = self._rows(table, ["uuid", "name"], within).group_by(["uuid", "name"]).aggregate([])
                names.update(zip(rows.column("uuid").to_pylist(), rows.column("name").to_pylist(), strict=True))
        return sorted({uuid for uuid, name in names if matches("uuid", uuid) and matches("name", name or "")})

    def _rows(self, table: Any, columns: Sequence[str], wanted: Any) -> pa.Table:  # noqa: ANN401, Arrow expressions
        with translated(str(self._store)):
            return self._store.open(table).dataset().to_table(columns=list(columns), filter=wanted)

    def _of_metric(self, name: str, tier: Tier, sight: Sight, uuids: list[str] | None) -> Iterator[Series]:
        """The series of one metric; its rows are read whole, within the limit on samples."""
        kind = COLUMN_OF[name].kind if name in COLUMN_OF else "vm"
        wanted = (pc.field("kind") == kind) & between("time", *_bounds(tier, sight))
        if uuids is not None:
            wanted &= pc.field("uuid").isin(uuids)
        if not self._store.exists(tier.table):
            return
        rows = self._rows(tier.table, ["time", "uuid", "device", "name", *_sources(name, tier)], wanted)
        if rows.num_rows > self._settings.serve_samples:
            raise LimitError(f"{rows.num_rows} rows, at most {self._settings.serve_samples} samples are returned (history.serve_samples)")
        if tier is RAW:
            rows = self._speaking(rows, wanted)
        rows = rows.sort_by([(key, "ascending") for key in ("uuid", "device", "time")])
        make = _raw_series if tier is RAW else _rolled_series
        for each in self._slices(name, rows):
            if name == INFO and not {label for label, _ in each.labels}.intersection(INVENTORY_LABELS):
                continue  # nothing is known to be told
            series = make(name, tier, sight, (rows.slice(each.start, each.end - each.start), rows, each))
            if len(series.times):
                yield series

    def _speaking(self, rows: pa.Table, wanted: Any) -> pa.Table:  # noqa: ANN401, an Arrow expression
        """Without the samples of a node where the VM only arrives or is gone, as everywhere."""
        nodes = rows.group_by("uuid").aggregate([("node", "count_distinct")])
        shared = nodes.filter(pc.greater(nodes.column("node_count_distinct"), 1)).column("uuid")
        if not len(shared):
            return rows
        of_vm = between("time", *_seconds(rows.column("time"))) & (pc.field("kind") == "vm") & pc.field("uuid").isin(shared)
        del wanted
        return without(rows, not_authoritative(self._rows(SAMPLES, OWNERSHIP, of_vm)))

    def _slices(self, name: str, rows: pa.Table) -> Iterator[Slice]:
        """Where each series' rows are: they change with VM, device, name, and for info metrics with what is told."""
        if not rows.num_rows:
            return
        told = self._told(name, rows)
        keys = [rows.column(key).to_pylist() for key in ("uuid", "device", "name")]
        same = np.ones(rows.num_rows, bool)
        same[0] = False
        numbers: dict[Labels, int] = {}
        for key in (*keys, [numbers.setdefault(labels, len(numbers)) for labels in told]):
            values = np.array(key, dtype=object)
            same[1:] &= values[1:] == values[:-1]
        starts = np.flatnonzero(~same)
        for start, end in zip(starts, [*starts[1:], rows.num_rows], strict=True):
            labels = self._labels_of(name, (keys[0][start], keys[1][start], keys[2][start]), told[start])
            yield Slice(int(start), int(end), labels)

    def _told(self, name: str, rows: pa.Table) -> list[Labels]:
        """The labels beyond VM and device at each row."""
        if name == STATE_INFO:
            state, reason = (rows.column(n).to_pylist() for n in rows.schema.names[-2:])
            return [(("reason", _reason(s, r)), ("state", state_word(-1 if s is None else s))) for s, r in zip(state, reason, strict=True)]
        more = [label for label in self._labels if label != "name"]
        if name != INFO and not more:
            return [()] * rows.num_rows
        return self._inventory(rows, INVENTORY_LABELS if name == INFO else more)

    def _inventory(self, rows: pa.Table, labels: Sequence[str]) -> list[Labels]:
        """What the inventory said at each row's time, the VM's first word where it is earlier than that."""
        if not self._store.exists(INVENTORY_ROWS):
            return [()] * rows.num_rows
        table = self._rows(INVENTORY_ROWS, ["uuid", "time", *labels], pc.field("uuid").isin(rows.column("uuid").unique()))
        words: dict[str, tuple[list[float], list[Labels]]] = {}
        for row in table.sort_by("time").to_pylist():
            moments, said = words.setdefault(row["uuid"], ([], []))
            moments.append(row["time"].timestamp())
            said.append(tuple((label, row[label]) for label in labels if row[label]))
        found = []
        times = rows.column("time").cast(pa.int64()).to_numpy() / 1e6
        for uuid, at in zip(rows.column("uuid").to_pylist(), times, strict=True):
            moments, said = words.get(uuid, ([], []))
            found.append(said[max(0, int(np.searchsorted(moments, at, "right")) - 1)] if said else ())
        return found

    def _labels_of(self, name: str, key: tuple[str, str, str | None], told: Labels) -> Labels:
        uuid, device, vm = key
        labels = dict(self._settings.serve_labels) | {"__name__": name, "uuid": uuid, **dict(told)}
        if "name" in self._labels:
            labels["name"] = vm or ""
        if name in COLUMN_OF and COLUMN_OF[name].metric.labels:
            labels[COLUMN_OF[name].metric.labels[0]] = device
        if name in COLUMN_OF and (variant := COLUMN_OF[name].metric.variant):
            labels |= {"__name__": COLUMN_OF[name].metric.name, variant[0]: variant[1]}
        return tuple(sorted((label, _UNSAFE.sub("\ufffd", value[:LABEL_LENGTH])) for label, value in labels.items() if value))


def tier_of(sight: Sight, now: float, raw_days: int, hourly_days: int) -> Tier:
    """The tier that answers: samples while they are kept and the range is short or the step fine, else a roll-up."""
    start, span = sight.start / 1000, (sight.end - sight.start) / 1000
    coarse = sight.step / 1000
    fits_hours = coarse >= HOUR_SECONDS and (not sight.window or sight.window >= 2 * HOUR_SECONDS * 1000)
    fits_days = coarse >= DAY_SECONDS and (not sight.window or sight.window >= 2 * DAY_SECONDS * 1000)
    if start >= now - raw_days * DAY_SECONDS and not (fits_hours and span > RAW_DAYS * DAY_SECONDS):
        return RAW
    if start >= now - hourly_days * DAY_SECONDS and not (fits_days and span > 62 * DAY_SECONDS):
        return HOURS
    return DAYS


def matching(matchers: Sequence[Matcher]) -> Callable[[str, str], bool]:
    """Says whether a label's value satisfies all matchers on it."""

    def matches(label: str, value: str) -> bool:
        return all(_matches(matcher, {label: value}) for matcher in matchers if matcher.name == label)

    return matches


def _matches(matcher: Matcher, labels: dict[str, str]) -> bool:
    value = labels.get(matcher.name, "")
    match matcher.how:
        case Match.EQUAL:
            return value == matcher.value
        case Match.NOT_EQUAL:
            return value != matcher.value
    # Arrow's patterns are RE2's, as Prometheus' own are: the same language, and no pattern takes for ever.
    try:
        found = pc.match_substring_regex(pa.scalar(value), pattern=f"^(?s:{matcher.value})$").as_py()
    except pa.ArrowInvalid as error:
        raise ProtocolError(f"the pattern {matcher.value!r} can't be used here: {error}") from error
    return bool(found) if matcher.how is Match.REGEX else not found


def _constant(labels: dict[str, str], matches: Callable[[str, str], bool]) -> bool:
    return all(matches(label, value) for label, value in labels.items())


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


def _raw_series(name: str, tier: Tier, sight: Sight, found: tuple[pa.Table, pa.Table, Slice]) -> Series:
    """Samples as they came, and a mark where Prometheus would have put one: absent values, gaps, and where another series goes on."""
    del tier
    rows, everything, each = found
    times = rows.column("time").cast(pa.int64()).to_numpy() // 1000
    values = _numbers(rows.column(name)) if name in COLUMN_OF else np.ones(len(times))
    live = np.round(_numbers(rows.column("interval_seconds")) * 1000 * STALE_INTERVALS)
    after = np.append(times[1:], _next_time(everything, each))
    ends = np.where(after - times > live, times + live, np.where(np.arange(len(times)) == len(times) - 1, after, -1))
    marks = (ends > 0) & (ends <= sight.end) & ~np.isnan(values)
    absent = np.isnan(values)
    absent[1:] &= ~np.isnan(values[:-1])
    absent[0:1] = False
    kept = ~np.isnan(values)
    moments = np.concatenate([times[kept], times[absent], ends[marks].astype(np.int64)])
    sampled = np.concatenate([values[kept], np.full(int(absent.sum() + marks.sum()), STALE)])
    order = np.argsort(moments, kind="stable")
    moments, sampled = moments[order], sampled[order]
    single = np.append(moments[1:] != moments[:-1], True) & (moments >= sight.start) & (moments <= sight.end)
    return Series(each.labels, moments[single], sampled[single])


def _next_time(rows: pa.Table, each: Slice) -> int:
    """When another series of the same VM and device goes on, in milliseconds; far away where none does."""
    if each.end < rows.num_rows:
        same = all(rows.column(key)[each.end].as_py() == rows.column(key)[each.end - 1].as_py() for key in ("uuid", "device"))
        if same:
            return int(rows.column("time").cast(pa.int64())[each.end].as_py() // 1000)
    return 1 << 52


def _rolled_series(name: str, tier: Tier, sight: Sight, found: tuple[pa.Table, pa.Table, Slice]) -> Series:
    """A roll-up at the moments that the expression looks at."""
    rows, _, each = found
    starts = rows.column("time").cast(pa.int64()).to_numpy() // 1000
    period = tier.seconds * 1000
    moments = sight.moments(starts, period)
    column = COLUMN_OF.get(name)
    if column is not None and column.rollup is Rollup.INCREASE:
        grown, last = _numbers(rows.column(f"{name}_increase")), _numbers(rows.column(f"{name}_last"))
        there = ~np.isnan(grown) & ~np.isnan(last)
        if not there.any():
            return Series(each.labels, np.array([], np.int64), np.array([]))
        times, values = counter(starts[there], period, (grown[there], last[there]), moments)
    else:
        values = np.ones(len(starts)) if column is None else _numbers(rows.column(_gauge_column(column, sight)))
        there = ~np.isnan(values)
        times, values = gauge(starts[there], period, values[there], moments) if there.any() else (starts[:0], values[:0])
    within = (times >= sight.start) & (times <= sight.end)
    return Series(each.labels, times[within], values[within])


def _gauge_column(column: Column, sight: Sight) -> str:
    """Which of a gauge's columns answers: its extremes where the extreme of a window is asked for, else its average."""
    if column.rollup is not Rollup.SPREAD:
        return f"{column.name}_last"
    ending = {"max_over_time": "max", "min_over_time": "min"}.get(sight.func, "avg")
    return f"{column.name}_{ending}"


def _numbers(column: pa.ChunkedArray) -> Numbers:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy())


def _seconds(times: pa.ChunkedArray) -> tuple[float, float]:
    bounds = pc.min_max(times).as_py()
    return bounds["min"].timestamp(), bounds["max"].timestamp() + 1


def _reason(state: int | None, reason: int | None) -> str:
    return reason_word(-1 if state is None else state, -1 if reason is None else reason)
