"""Text of strangers (names, titles, mountpoints...) made safe to show, and otherwise kept as people typed it."""

from __future__ import annotations

import re
from typing import Final

NAME_LENGTH: Final = 256
"""Characters that a VM's, a node's or a device's name may have."""
REPLACEMENT: Final = "\ufffd"
MARK: Final = "?"
"""What people see in place of a character that is not safe, where the text is not kept."""

_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls (C0, C1, line and paragraph separator), directional embeddings, overrides and isolates, and surrogates.

They move a terminal's cursor, turn a line around or have no UTF-8. Anything else is somebody's writing: a no-break or ideographic space,
the joiners of Persian, Indic scripts and emoji, directional marks, and scripts that are newer than this Python. Source of the
directional ones: Unicode's UAX 9, "explicit directional formatting".
"""


def printable(text: str, limit: int = NAME_LENGTH, mark: str = REPLACEMENT) -> str:
    """``text`` with each character that is not safe to show replaced by ``mark``, at most ``limit`` characters of it."""
    if len(text) > limit:
        text = text[:limit]
    return text if text.isprintable() else _UNSAFE.sub(mark, text)


def is_printable(text: str) -> bool:
    """Whether ``printable`` would change no character of ``text``."""
    return text.isprintable() or _UNSAFE.search(text) is None


def safe_line(text: str) -> str:
    """``text`` as one line for people: what is not safe to show becomes ``?``, and a line break the two characters that stand for it."""
    return printable(text.replace("\n", "\\n"), len(text) + text.count("\n"), MARK)


def safe_lines(text: str) -> str:
    """``text`` of several lines for people, each of them safe."""
    return "\n".join(map(safe_line, text.split("\n")))
