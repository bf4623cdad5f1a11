"""The lines of what only the guest knows: texts and lists that the tenant made, rendered only where something changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Final

from virtflow.exporter.render.lines import Plan, label_text
from virtflow.schemas.catalogue.guest_agent import ADDRESS_LABELS, AGENT_METRICS, FILESYSTEM_LABELS, INFO_LABELS
from virtflow.schemas.catalogue.types import Guest, Metric
from virtflow.schemas.records import NAN, GuestMetrics

AGE: Final = "vm_guest_age_seconds"
"""Rendered at the scrape."""
INFO, AGENT_INFO, ADDRESS_INFO = "vm_guest_info", "vm_guest_agent_info", "vm_guest_ip_address_info"

_ABSENT: Final = GuestMetrics()
_INFO: Final = attrgetter(*INFO_LABELS)


class GuestText:
    """Renders guests for the families that were chosen at start."""

    def __init__(self, at: Mapping[str, int]) -> None:
        """``at`` has the places of the families' lines by name; others are passed by."""
        self._values: Final = Plan.of(_told_in(""), at)
        self._filesystems: Final = Plan.of(_told_in("filesystems"), at)
        self._info: Final = at.get(INFO)
        self._agent_info: Final = at.get(AGENT_INFO)
        self._addresses: Final = at.get(ADDRESS_INFO)

    def render(self, lines: list[str], identity: str, guests: Sequence[GuestMetrics], before: Sequence[GuestMetrics]) -> None:
        """Brings the lines from ``before`` up to ``guests``, each with one entry or none."""
        new, old = guests[0] if guests else _ABSENT, before[0] if before else _ABSENT
        self._values.render(lines, f"{identity}}} ", self._values.values(new), self._values.values(old))
        if self._info is not None and (words := _INFO(new)) != _INFO(old):
            lines[self._info] = _info(INFO, identity, zip(INFO_LABELS, words, strict=True)) if any(words) else ""
        if self._agent_info is not None and new.reason != old.reason:
            lines[self._agent_info] = _info(AGENT_INFO, identity, [("reason", new.reason)]) if new.reason else ""
        if self._filesystems.at and new.filesystems != old.filesystems:
            each = {_filesystem(identity, one.mountpoint, one.fstype): one for one in new.filesystems}
            self._filesystems.render_each(lines, each)
        if self._addresses is not None and (new.addresses != old.addresses or new.address_source != old.address_source):
            lines[self._addresses] = "".join(_addresses(identity, new))


def taken(guests: Sequence[GuestMetrics]) -> float:
    """When the guest's agent was asked for what it told, in Unix seconds; NaN where nothing is known."""
    return guests[0].taken if guests else NAN


def _told_in(each: str) -> list[Metric]:
    return [
        metric for metric in AGENT_METRICS if isinstance(metric.source, Guest) and metric.source.each == each and metric.source.attribute
    ]


def _info(name: str, identity: str, labels: Iterable[tuple[str, str]]) -> str:
    return f"{name}{{{identity},{label_text(labels)}}} 1\n"


def _filesystem(identity: str, mountpoint: str, fstype: str) -> str:
    return f"{identity},{label_text(zip(FILESYSTEM_LABELS, (mountpoint, fstype), strict=True))}}} "


def _addresses(identity: str, guest: GuestMetrics) -> dict[str, None]:
    """A line for each address; two that would be the same series are one."""
    labels = [(one.interface, one.address, one.family, guest.address_source) for one in guest.addresses]
    return dict.fromkeys(_info(ADDRESS_INFO, identity, zip(ADDRESS_LABELS, each, strict=True)) for each in labels)
