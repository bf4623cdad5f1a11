"""Selection of the exported metrics by group and name: permanently with ``--include`` and ``--exclude``, per scrape with ``collect[]``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from virtflow.runtime.own_metrics import rows_of
from virtflow.schemas.catalogue.metrics import METRICS
from virtflow.schemas.catalogue.types import Group
from virtflow.schemas.errors import InputError, SettingError

SERVICE: Final = "exporter"

EXPORTED: Final = tuple(metric for metric in METRICS if metric.group is not Group.PIPELINE) + rows_of(SERVICE)
"""Every metric the exporter can serve: VMs, nodes, and what it counts about itself."""

NAMES: Final = frozenset(metric.name for metric in EXPORTED)
GROUPS: Final = {group.value: frozenset(metric.name for metric in EXPORTED if metric.group is group) for group in Group}


class UnknownNameError(InputError):
    """A scrape asked for something that is neither a group nor a metric."""

    def __init__(self, word: str) -> None:
        """``word`` is the unknown name."""
        super().__init__(f"{word[:80]!r} is neither a group nor a metric; groups: {', '.join(GROUPS)}")


def chosen(include: Sequence[str], exclude: Sequence[str]) -> frozenset[str]:
    """The metrics to export; raises ``SettingError`` for a word that is neither a group nor a metric."""
    included = _setting("exporter.include", include) if include else NAMES
    return included - _setting("exporter.exclude", exclude)


def collected(words: Iterable[str]) -> frozenset[str]:
    """The metrics a scrape asks for with ``collect[]``; raises ``UnknownNameError``."""
    return frozenset().union(*map(_named, words))


def _named(word: str) -> frozenset[str]:
    if word in GROUPS:
        return GROUPS[word]
    if word in NAMES:
        return frozenset({word})
    raise UnknownNameError(word)


def _setting(key: str, words: Sequence[str]) -> frozenset[str]:
    try:
        return collected(words)
    except UnknownNameError as error:
        bad = next(word for word in words if word not in GROUPS and word not in NAMES)
        fix = "`virtflow metrics list` shows the groups and metrics"
        raise SettingError(origin="settings", key=key, value=bad, why="is neither a group nor a metric", fix=fix) from error
