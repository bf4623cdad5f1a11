"""What the history should say, worked out sample by sample with plain loops; shares no code with the product.

The words are those of docs/history.md. Times are whole microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

SECOND: Final = 1_000_000
HOUR: Final = 3_600 * SECOND
DAY: Final = 24 * HOUR
STATES: Final = ("no_state", "running", "blocked", "paused", "shutting_down", "shut_off", "crashed", "suspended")

Series = tuple[str, str]
"""Kind and device of a VM's row."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One sample of one VM: when, where, by which run and sequence, and what it told: (kind, device) to metric to value."""

    at: int
    node: str
    run: str
    sequence: int
    interval: float
    state: int
    reason: int
    monitored: bool = True
    told: dict[Series, dict[str, float]] = field(default_factory=dict)

    @property
    def holds(self) -> int:
        """For how long it holds as its node's word."""
        return int(min(3 * self.interval, 1_800) * SECOND)

    @property
    def worth(self) -> int:
        """How it ranks beside other nodes' words."""
        if self.state == 5 and self.reason == 4:
            return -1
        if self.state in (0, 5, 6) or (self.state == 3 and self.reason in (2, 11)):
            return 0
        return 2 if self.state in (1, 2, 4) else 1


def counted(samples: Iterable[Seen]) -> list[Seen]:
    """The samples that count, in order, none twice."""
    unique = {(each.node, each.run, each.sequence): each for each in samples}
    newest: dict[str, Seen] = {}
    ran, kept = "", []
    for each in sorted(unique.values(), key=lambda sample: (sample.at, sample.node)):
        newest[each.node] = each
        if each.worth == 2:
            ran = each.node
        words = [word for word in newest.values() if each.at - word.at <= word.holds]
        if each.worth < max(word.worth for word in words):
            continue
        here = ran in ("", each.node)
        if each.worth < 0 and not here:
            continue
        if each.worth == 0 and not here and any(word.node == ran for word in words):
            continue
        kept.append(each)
    return kept


@dataclass(frozen=True, slots=True)
class Process:
    """When it was first seen, and whether its counters began at 0 then; the past of another VM with the same UUID is unknown."""

    start: int
    from_zero: bool


def processes(everything: Iterable[Seen], kept: list[Seen]) -> list[Process | None]:
    """Of each sample that counts its process; None where it is the first one known of its node."""
    everything = sorted(everything, key=lambda sample: sample.at)
    running = [each for each in everything if each.worth == 2]
    after_off = _after_off(everything)
    last: dict[str, int] = {}
    last_ran: dict[str, int] = {}
    began: dict[str, Process] = {}
    ran: Seen | None = None
    found = []
    for each in kept:
        moved = ran is not None and ran.node != each.node and ran.at > last.get(each.node, -1)
        lapsed = each.node not in last or each.at - last[each.node] > each.holds or (each.node, each.at) in after_off
        if moved and lapsed:
            others = _going_on_elsewhere(running, each)
            # A VM that came to another node after it last ran on this one has left this one: here is another VM.
            came = [p.start for p in map(began.get, others) if p and p.from_zero]
            left = each.node in last and any(last_ran.get(each.node, start) <= start + each.holds for start in came)
            if not others or left:
                began[each.node] = Process(each.at, from_zero=not others)
        last[each.node] = each.at
        if each.worth == 2:
            last_ran[each.node], ran = each.at, each
        found.append(began.get(each.node))
    return found


def _after_off(everything: Iterable[Seen]) -> set[tuple[str, int]]:
    """Node and time of each sample before which that node said that the VM is shut off."""
    state: dict[str, int] = {}
    found = set()
    for each in everything:
        if state.get(each.node) == 5:
            found.add((each.node, each.at))
        state[each.node] = each.state
    return found


def _going_on_elsewhere(running: list[Seen], new: Seen) -> list[str]:
    found = []
    for node in {each.node for each in running} - {new.node}:
        words = [each for each in running if each.node == node]
        before = [each for each in words if each.at <= new.at]
        if not before or new.at - before[-1].at > before[-1].holds:
            continue
        word = before[-1]
        for after in words[len(before) :]:
            if after.at - word.at > word.holds:
                break
            word = after
        if word.at > new.at + new.holds:
            found.append(node)
    return found


def growths(
    kept: list[Seen], began: list[Process | None], series: Series, metric: str, *, of_guest: bool
) -> Iterator[tuple[Seen, float, int]]:
    """By how much a counter grew up to each sample that has it, and since when."""
    on_node: dict[str, tuple[float, int]] = {}
    anywhere: tuple[float, int] | None = None
    for each, start in zip(kept, began, strict=True):
        value = each.told.get(series, {}).get(metric)
        if value is None:
            continue
        here = on_node.get(each.node)
        if here is not None and (start is None or here[1] >= start.start):
            yield each, _risen(value, here[0]), here[1]
        elif start is not None and start.from_zero and anywhere is not None:
            yield each, _risen(value, anywhere[0]) if of_guest else value, anywhere[1]
        else:
            yield each, 0, each.at
        on_node[each.node] = anywhere = (value, each.at)


def _risen(value: float, before: float) -> float:
    return value - before if value >= before else value


def weights(samples: list[Seen]) -> list[float]:
    """For how many seconds each sample of an hour stands."""
    seconds = []
    for each, after in zip(samples, [*samples[1:], None], strict=True):
        until = (after.at - each.at) / SECOND if after else each.interval * 2
        seconds.append(until if until <= 1.5 * each.interval else each.interval)
    whole = sum(seconds)
    return [each * 3_600 / whole for each in seconds] if whole > 3_600 else seconds


@dataclass(frozen=True, slots=True)
class Metrics:
    """Which metrics there are: how each is rolled up, and which are the guest's own."""

    rolled: dict[str, str]
    of_guest: frozenset[str]


Row = dict[str, Any]


def hours(samples: list[Seen], metrics: Metrics) -> dict[tuple[str, str, int], Row]:
    """The hours of a VM and its devices, by kind, device, and beginning."""
    kept = counted(samples)
    began = processes(samples, kept)
    found: dict[tuple[str, str, int], Row] = {}
    for series in sorted({series for each in kept for series in each.told}):
        by_hour: dict[int, list[Seen]] = defaultdict(list)
        for each in kept:
            if series in each.told:
                by_hour[each.at // HOUR * HOUR].append(each)
        for start, of_hour in by_hour.items():
            found[*series, start] = _hour(series, of_hour, metrics)
        for metric in sorted({metric for each in kept for metric in each.told.get(series, {}) if metrics.rolled.get(metric) == "increase"}):
            _add_growth(found, growths(kept, began, series, metric, of_guest=metric in metrics.of_guest), series, metric)
    return found


def _add_growth(found: dict[tuple[str, str, int], Row], grown: Iterable[tuple[Seen, float, int]], series: Series, metric: str) -> None:
    by_hour: dict[int, list[tuple[Seen, float, int]]] = defaultdict(list)
    for each, growth, since in grown:
        by_hour[each.at // HOUR * HOUR].append((each, growth, since))
    for start, of_hour in by_hour.items():
        row = found[*series, start]
        row[f"{metric}_increase"] = sum(growth for _, growth, _ in of_hour)
        row[f"{metric}_last"] = of_hour[-1][0].told[series][metric]
        if metric == "vm_cpu_seconds_total":
            row[f"{metric}_rate"] = _rate(start, of_hour)


def _rate(start: int, grown: list[tuple[Seen, float, int]]) -> float:
    """By the second, with what fell before the hour left out where it grew across a gap."""
    whole, begins = 0.0, []
    for each, growth, since in grown:
        begin = max(since, start) if each.at - since > each.holds else since
        begins.append(begin)
        whole += growth * (each.at - begin) / (each.at - since) if each.at > since else 0
    return whole / max(3_600, (max(each.at for each, _, _ in grown) - min(begins)) / SECOND)


def _hour(series: Series, samples: list[Seen], metrics: Metrics) -> Row:
    stands = weights(samples)
    monitored = sum(seconds for each, seconds in zip(samples, stands, strict=True) if each.monitored)
    row: Row = {
        "node": samples[-1].node,
        "nodes": len({each.node for each in samples}),
        "samples": len(samples),
        "monitor_samples": sum(each.monitored for each in samples),
        "covered_seconds": sum(stands),
        "coverage": sum(stands) / 3_600,
        "monitor_covered_seconds": monitored,
        "first_time": samples[0].at,
        "last_time": samples[-1].at,
    }
    if series[0] == "vm":
        for number, word in enumerate(STATES):
            row[f"vm_state_{word}_minutes"] = sum(s for each, s in zip(samples, stands, strict=True) if each.state == number) / 60
    for metric in {metric for each in samples for metric in each.told[series] if metrics.rolled.get(metric) == "spread"}:
        values = [(each.told[series][metric], s) for each, s in zip(samples, stands, strict=True) if metric in each.told[series]]
        row[f"{metric}_avg"] = sum(value * seconds for value, seconds in values) / sum(seconds for _, seconds in values)
        row[f"{metric}_known_seconds"] = sum(seconds for _, seconds in values)
        row[f"{metric}_min"], row[f"{metric}_max"] = min(v for v, _ in values), max(v for v, _ in values)
    return row


def days(of_hours: dict[tuple[str, str, int], Row]) -> dict[tuple[str, str, int], Row]:
    """The days of those hours."""
    by_day: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for (kind, device, start), row in sorted(of_hours.items()):
        by_day[kind, device, start // DAY * DAY].append(row)
    return {key: _day(rows) for key, rows in by_day.items()}


def _day(rows: list[Row]) -> Row:
    day: Row = {
        "node": rows[-1]["node"],
        "nodes": max(len({row["node"] for row in rows}), *(row["nodes"] for row in rows)),
        "coverage": min(sum(row["covered_seconds"] for row in rows), 86_400) / 86_400,
        "first_time": rows[0]["first_time"],
        "last_time": rows[-1]["last_time"],
    }
    for name in {name for row in rows for name in row}:
        having = [row for row in rows if name in row]
        metric, _, what = name.rpartition("_")
        if name in {"samples", "covered_seconds", "monitor_samples", "monitor_covered_seconds"} or what in {
            "increase",
            "minutes",
            "seconds",
        }:
            day[name] = sum(row[name] for row in having)
        elif what == "rate":
            day[name] = sum(row[name] for row in having) * 3_600 / 86_400
        elif what == "last":
            day[name] = having[-1][name]
        elif what in {"min", "max"}:
            day[name] = min(row[name] for row in having) if what == "min" else max(row[name] for row in having)
        elif what == "avg":
            known = f"{metric}_known_seconds"
            day[name] = sum(row[name] * row[known] for row in having) / sum(row[known] for row in having)
    return day
