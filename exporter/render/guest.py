"""Renders the values of the guest agent: texts and lists that the tenant controls, rendered again only after a change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Final

from virtflow.exporter.render.lines import LABEL_BYTES, Plan, label_text
from virtflow.schemas.catalogue.guest_agent import ADDRESS_LABELS, AGENT_METRICS, FILESYSTEM_LABELS, INFO_LABELS
from virtflow.schemas.catalogue.types import Guest, Metric
from virtflow.schemas.records import NAN, GuestFilesystemMetrics, GuestMetrics

AGE: Final = "vm_guest_age_seconds"
"""Rendered at the scrape."""
INFO, AGENT_INFO, ADDRESS_INFO = "vm_guest_info", "vm_guest_agent_info", "vm_guest_ip_address_info"

_ABSENT: Final = GuestMetrics()
_INFO: Final = attrgetter(*INFO_LABELS)


class GuestText:
    """Renders guests for the families that were chosen at start."""

    def __init__(self, at: Mapping[str, int], label_bytes: int = LABEL_BYTES) -> None:
        """``at`` has the places of the families' lines by name; others are skipped. Label values are cut at ``label_bytes``."""
        self._label_bytes: Final = label_bytes
        self._values: Final = Plan.of(_told_in(""), at)
        self._filesystems: Final = Plan.of(_told_in("filesystems"), at)
        self._info: Final = at.get(INFO)
        self._agent_info: Final = at.get(AGENT_INFO)
        self._addresses: Final = at.get(ADDRESS_INFO)

    def render(self, lines: list[str], identity: str, guests: Sequence[GuestMetrics], before: Sequence[GuestMetrics]) -> None:
        """Updates the lines from ``before`` to ``guests``, each with one entry or none."""
        new, old = guests[0] if guests else _ABSENT, before[0] if before else _ABSENT
        self._values.render(lines, identity, self._values.values(new), self._values.values(old))
        if self._info is not None and (words := _INFO(new)) != _INFO(old):
            lines[self._info] = self._of_info(INFO, identity, zip(INFO_LABELS, words, strict=True)) if any(words) else ""
        if self._agent_info is not None and new.reason != old.reason:
            lines[self._agent_info] = self._of_info(AGENT_INFO, identity, [("reason", new.reason)]) if new.reason else ""
        if self._filesystems.at and new.filesystems != old.filesystems:
            each = {self._filesystem(identity, one): one for one in new.filesystems}
            self._filesystems.render_each(lines, each)
        if self._addresses is not None and (new.addresses != old.addresses or new.address_source != old.address_source):
            lines[self._addresses] = "".join(self._of_addresses(identity, new))

    def _of_info(self, name: str, identity: str, labels: Iterable[tuple[str, str]]) -> str:
        return f"{name}{{{identity},{label_text(labels, self._label_bytes)}}} 1\n"

    def _filesystem(self, identity: str, one: GuestFilesystemMetrics) -> str:
        told = (one.mountpoint, one.fstype, one.device)
        return f"{identity},{label_text(zip(FILESYSTEM_LABELS, told, strict=True), self._label_bytes)}"

    def _of_addresses(self, identity: str, guest: GuestMetrics) -> dict[str, None]:
        """A line for each address; duplicates of a series are left out."""
        labels = [(one.interface, one.address, one.family, guest.address_source) for one in guest.addresses]
        return dict.fromkeys(self._of_info(ADDRESS_INFO, identity, zip(ADDRESS_LABELS, each, strict=True)) for each in labels)


def taken(guests: Sequence[GuestMetrics]) -> float:
    """When the guest agent's values were read, in Unix seconds; NaN if there are none."""
    return guests[0].taken if guests else NAN


def _told_in(each: str) -> list[Metric]:
    return [
        metric for metric in AGENT_METRICS if isinstance(metric.source, Guest) and metric.source.each == each and metric.source.attribute
    ]
