"""HTML whose text is always escaped: only ``Html`` goes in as it is, and only this module makes it."""

from __future__ import annotations

from html import escape
from typing import Final

VOID: Final = frozenset({"input", "link", "meta", "br", "path", "rect", "circle", "line", "polyline"})
"""Elements without content; those of SVG are closed by a slash."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | int | float | None
"""A number or text is escaped; ``Html`` is not; None is nothing."""


def el(tag: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """An element. An attribute that is a word of Python has an underscore behind it (``class_``), other underscores are hyphens; True is a bare attribute."""
    words = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Html(f"<{tag}{words}/>")
    return Html(f"<{tag}{words}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """Pieces one after the other."""
    return Html("".join(_piece(child) for child in children))


def _piece(child: Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Html) else escape(str(child), quote=False)


def _attribute(name: str, value: str | float | bool | None) -> str:  # noqa: FBT001, a bare attribute
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
