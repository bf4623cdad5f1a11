"""What the rows of all sections are made of: a setting's help, switch and bounds, and types that several sections use."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta

Seconds = float
SCHEMES: Final = frozenset({"http", "https"})
"""What our clients, and the browsers that follow our links, ask with."""
ADDRESS_PATTERN = r"^(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):[0-9]{1,5}$"

_META: Any = Meta
"""``Meta`` without its overloads, which forbid to pass bounds on."""


def row(about: str, switch: str = "", **bounds: float) -> Meta:
    """A setting's row: its help, the switch of commands that take it, and its bounds (``ge``, ``gt``, ``le``)."""
    meta: Meta = _META(description=about, extra={"switch": switch}, **bounds)
    return meta


def server_url(about: str, example: str, switch: str = "", *, query: bool = False) -> Meta:
    """The row of a server's URL, HTTP or HTTPS; without one nothing is asked. ``query`` says that it may have one."""
    return Meta(description=about, extra={"switch": switch, "url": example, "query": query})


def address(about: str) -> Meta:
    """The row of an address to listen on, ``ADDRESS:PORT``."""
    return Meta(description=about, extra={"switch": "--listen"}, pattern=ADDRESS_PATTERN)


def url_problem(url: str, *, query: bool = False) -> str:
    """Why a URL can't be one of a server that is asked by HTTP, "" where it can.

    A user is refused, because URLs are shown in messages; so are a fragment and, unless ``query``, a query, because paths are put after it.
    """
    parts = _parts(url)
    if parts is None or parts.scheme not in SCHEMES or not parts.hostname:
        return "is no http or https URL"
    if "@" in parts.netloc:
        return "names a user"
    if parts.fragment or (parts.query and not query):
        return "has a query or a fragment"
    return ""


def _parts(url: str) -> SplitResult | None:
    """The parts of a URL as it travels, None where it is none: what is not printable, and a port beyond the range, is part of no URL."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return None if port == 0 else parts
