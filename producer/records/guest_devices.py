"""Reads the guest agent's channel, the balloon and the metadata from a domain XML. Pure."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET  # the XML is libvirt's own rendering: no entities, no external references

from msgspec import Struct

from virtflow.producer.records.domain_xml import XML_BYTES
from virtflow.schemas.text import printable

CHANNEL: Final = "org.qemu.guest_agent.0"
CONNECTED: Final = "connected"
DISCONNECTED: Final = "disconnected"
NAMESPACES: Final = 32
PERIOD_SECONDS: Final = 2**31 - 1


class Look(Struct, frozen=True, gc=False):
    """How a VM stands: ``channel`` is "" without one, else ``connected`` or ``disconnected`` (nobody listens in the guest).

    ``balloon`` is whether it has a balloon device, ``period_seconds`` how often that tells statistics (0: never).
    ``metadata`` are the XML namespaces of its metadata.
    """

    channel: str = ""
    balloon: bool = False
    period_seconds: int = 0
    metadata: list[str] = []


def look_of(xml: str) -> Look:
    """How the VM with that XML stands; of one that can't be read, nothing is known and nothing may be done."""
    if len(xml) > XML_BYTES:
        return Look()
    try:
        domain = ET.fromstring(xml)  # noqa: S314, see the import
    except (ET.ParseError, ValueError):
        return Look()
    balloon = domain.find("devices/memballoon")
    there = balloon is not None and balloon.get("model") != "none"
    return Look(_channel(domain), there, _period(balloon) if there else 0, _namespaces(domain))


def _channel(domain: ET.Element) -> str:
    for target in domain.iterfind("devices/channel/target"):
        if target.get("name") == CHANNEL:
            return CONNECTED if target.get("state") == CONNECTED else DISCONNECTED
    return ""


def _period(balloon: ET.Element | None) -> int:
    stats = None if balloon is None else balloon.find("stats")
    text = "0" if stats is None else stats.get("period", "0")
    return min(int(text), PERIOD_SECONDS) if text.isascii() and text.isdecimal() and len(text) <= len(str(PERIOD_SECONDS)) else 0


def _namespaces(domain: ET.Element) -> list[str]:
    metadata = domain.find("metadata")
    found = [] if metadata is None else [element.tag.partition("}")[0].removeprefix("{") for element in metadata]
    return [printable(namespace) for namespace in found[:NAMESPACES]]
