"""What the rows of all sections are made of: a setting's help, switch and bounds, and types that several sections use."""

from __future__ import annotations

from typing import Any

from msgspec import Meta

Seconds = float
ADDRESS_PATTERN = r"^(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):[0-9]{1,5}$"

_META: Any = Meta
"""``Meta`` without its overloads, which forbid to pass bounds on."""


def row(about: str, switch: str = "", **bounds: float) -> Meta:
    """A setting's row: its help, the switch of commands that take it, and its bounds (``ge``, ``gt``, ``le``)."""
    meta: Meta = _META(description=about, extra={"switch": switch}, **bounds)
    return meta


def address(about: str) -> Meta:
    """The row of an address to listen on, ``ADDRESS:PORT``."""
    return Meta(description=about, extra={"switch": "--listen"}, pattern=ADDRESS_PATTERN)
