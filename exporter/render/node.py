"""Renders a node's lines of the exposition format from its newest status, and those of a node whose status is overdue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from virtflow.exporter.render.lines import LABEL_BYTES, Lines, label_text, quoted
from virtflow.schemas.catalogue.metrics import METRICS
from virtflow.schemas.catalogue.types import Group, Health, Metric
from virtflow.schemas.records import NodeStatus

NODE_FAMILIES: Final = tuple(metric for metric in METRICS if metric.group is Group.NODE)
UP, INFO, AGE, INTERVAL = (f"virtflow_node_{what}" for what in ("up", "info", "sample_age_seconds", "interval_seconds"))
LASTING: Final = frozenset({INFO, INTERVAL})
"""Families that stay valid when a node's status is overdue; the rest of its health is unknown then."""


class NodeText:
    """Renders nodes for the families that were chosen at start."""

    def __init__(self, names: Iterable[str], label_bytes: int = LABEL_BYTES) -> None:
        """``names`` are the metrics to export; others are skipped. Label values are cut at ``label_bytes``."""
        wanted = frozenset(names)
        self._label_bytes: Final = label_bytes
        self.families: Final = tuple(metric for metric in NODE_FAMILIES if metric.name in wanted)

    def key(self, node: str) -> str:
        """What distinguishes a node's series from another node's: its name as it is rendered."""
        return quoted(node, self._label_bytes)

    def identity(self, node: str) -> str:
        """The label of all of the node's series."""
        return label_text([("node", node)], self._label_bytes)

    def lines(self, status: NodeStatus) -> Lines:
        """The lines of a node's status; the age is rendered at the scrape and stays "" here."""
        identity = self.identity(status.node)
        return tuple(self._lines_of(metric, status, identity) for metric in self.families)

    def silent(self, status: NodeStatus) -> Lines:
        """The lines of a node without a status for three of its intervals: down, and the families that stay valid."""
        identity = self.identity(status.node)
        return tuple(
            f"{UP}{{{identity}}} 0\n" if metric.name == UP else self._lines_of(metric, status, identity) if metric.name in LASTING else ""
            for metric in self.families
        )

    def _lines_of(self, metric: Metric, status: NodeStatus, identity: str) -> str:
        if isinstance(metric.source, Health):
            value = getattr(status.health, metric.source.attribute)
            if isinstance(value, dict):
                labelled = {label_text([(metric.labels[1], key)], self._label_bytes): value[key] for key in sorted(value)}
                return "".join(_line(metric.name, f"{identity},{labels}", number) for labels, number in labelled.items())
            return _line(metric.name, identity, value)
        if metric.name == INTERVAL:
            return _line(metric.name, identity, status.interval)
        if metric.name == INFO:
            versions = label_text(((label, getattr(status.health, label)) for label in metric.labels[1:]), self._label_bytes)
            return _line(metric.name, f"{identity},{versions}", 1)
        return ""


def _line(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {value}\n" if value >= 0 else ""
