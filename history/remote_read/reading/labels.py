"""Labels: which matchers they satisfy, which names series of ours can have, and what the inventory said of a VM at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.remote_read.protocol.counted import ProtocolError
from virtflow.history.remote_read.protocol.wire import Asked, Match, Matcher
from virtflow.history.storage.table_schemas import COLUMN_OF, COLUMNS, values_of_device
from virtflow.runtime.settings import Settings
from virtflow.schemas.catalogue.metrics import INVENTORY_LABELS
from virtflow.schemas.states import REASONS, STATES

INFO, STATE_INFO = "vm_info", "vm_state_info"
NAMES: Final = (*(column.name for column in COLUMNS), INFO, STATE_INFO)
LABEL_LENGTH: Final = 256
WANTED: Final = 16
_UNSAFE: Final = re.compile("[\0\ud800-\udfff]")
_DEVICE_LABELS: Final = {column.name: column.metric.labels for column in COLUMNS if column.kind != "vm"}
LABELS_OF_KIND: Final = {column.kind: column.metric.labels for column in COLUMNS if column.kind != "vm"}
"""The labels whose values tell a device of a kind from others; several of them stand in its column with tabs between."""

_VARIANTS: Final = {column.name: column.metric.variant for column in COLUMNS if column.metric.variant}
"""Columns that share a metric's name: each has a label of its own (source: the catalogue's ``Split``)."""

Labels = tuple[tuple[str, str], ...]
Numbers = np.ndarray[Any, np.dtype[Any]]


def label_names(settings: Settings) -> set[str]:
    """The names of labels that a series of ours can have."""
    own = {"__name__", "uuid", "state", "reason", *settings.exporter.vm_labels, *INVENTORY_LABELS, *settings.history.serve_labels}
    of_devices = {label for labels in LABELS_OF_KIND.values() for label in labels}
    return own | of_devices | {label for label, _ in _VARIANTS.values()}


def exported_name(name: str) -> str:
    """The name of a column's or an info metric's series: columns of one metric share its name."""
    return COLUMN_OF[name].metric.name if name in COLUMN_OF else name


def foreign_labels(settings: Settings, matchers: Sequence[Matcher]) -> list[str]:
    """Labels that the matchers want and no series of ours has ever had, so that nothing can match."""
    known = label_names(settings)
    return sorted({matcher.name for matcher in matchers if matcher.name not in known and not satisfied(matcher, "")})


def wanted_by_all(queries: Sequence[Asked]) -> list[tuple[str, str]]:
    """Labels and values that each of the queries wants by equality, the metric's name left out; in their order, ``WANTED`` at most."""
    told = [{(m.name, m.value) for m in each.matchers if m.how is Match.EQUAL and m.value and m.name != "__name__"} for each in queries]
    return sorted(set.intersection(*told))[:WANTED] if told else []


def words_of(label: str) -> set[str]:
    """The values that a label has by the catalogue, whatever VMs there are: of states, their reasons, and columns that share a metric's name."""
    words = {"state": set(STATES), "reason": {word for of_state in REASONS.values() for word in of_state}}
    return words.get(label, set()) | {value for name, value in _VARIANTS.values() if name == label}


def labels_of(settings: Settings, name: str, key: tuple[str, str, str | None], told: Labels) -> Labels:
    """A series' labels in their order: ``key`` is UUID, device and the VM's name, ``told`` what is known beyond."""
    uuid, device, vm = key
    labels = dict(settings.history.serve_labels) | {"__name__": name, "uuid": uuid, **dict(told)}
    if "name" in settings.exporter.vm_labels:
        labels["name"] = vm or ""
    if name in _DEVICE_LABELS:
        labels |= values_of_device(_DEVICE_LABELS[name], device or "")
    if name in _VARIANTS:
        label, value = _VARIANTS[name]
        labels |= {"__name__": exported_name(name), label: value}
    return tuple(sorted((label, _UNSAFE.sub("\ufffd", value[:LABEL_LENGTH])) for label, value in labels.items() if value))


def matching(matchers: Sequence[Matcher]) -> Callable[[str, str], bool]:
    """Says whether a label's value satisfies all matchers on it."""

    def matches(label: str, value: str) -> bool:
        return all(satisfied(matcher, value) for matcher in matchers if matcher.name == label)

    return matches


def all_satisfied(matchers: Sequence[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy all matchers; a label that is not there is empty."""
    return all(satisfied(matcher, labels.get(matcher.name, "")) for matcher in matchers)


def satisfied(matcher: Matcher, value: str) -> bool:
    """Whether a label's value satisfies a matcher; raises ``ProtocolError`` for a pattern that is none."""
    match matcher.how:
        case Match.EQUAL:
            return value == matcher.value
        case Match.NOT_EQUAL:
            return value != matcher.value
    # Arrow's patterns are RE2's, as Prometheus' own are: the same language, and no pattern runs without end.
    try:
        found = pc.match_substring_regex(pa.scalar(value), pattern=f"^(?s:{matcher.value})$").as_py()
    except pa.ArrowInvalid as error:
        raise ProtocolError(f"the pattern {matcher.value!r} can't be used here: {error}") from error
    return bool(found) if matcher.how is Match.REGEX else not found


class Told:
    """What the inventory said of VMs, as labels with a number each; number 0 is nothing."""

    def __init__(self, rows: pa.Table | None, labels: Sequence[str]) -> None:
        """``rows`` are the inventory's, with ``uuid``, ``time`` and ``labels``; None where there is no inventory."""
        self.labels: list[Labels] = [()]
        numbers: dict[Labels, int] = {(): 0}
        self._of_vm: dict[str, tuple[list[int], list[int]]] = {}
        for row in rows.sort_by("time").to_pylist() if rows is not None else ():
            said = tuple((label, row[label]) for label in labels if row[label])
            if said not in numbers:
                numbers[said] = len(self.labels)
                self.labels.append(said)
            moments, codes = self._of_vm.setdefault(row["uuid"], ([], []))
            moments.append(round(row["time"].timestamp() * 1e6))
            codes.append(numbers[said])

    def at(self, uuid: str, times: Numbers) -> Numbers:
        """The numbers at times (microseconds); the VM's first word where it is earlier than that."""
        moments, codes = self._of_vm.get(uuid, ([], []))
        if not moments:
            return np.zeros(len(times), np.int64)
        place = np.searchsorted(np.array(moments, np.int64), times, "right") - 1
        return np.array(codes, np.int64)[np.maximum(place, 0)]
