"""Text that nobody should trust, and what a terminal may be sent."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from tests.support.command import PROGRAM, environment

HOSTILE: Final = (
    "\x1b]0;owned\x07",
    "\x1b[2J\x1b[1;1Howned",
    "\x1b[8mhidden",
    "\x9b31mred",
    "\x90q\x9c",
    "over\rwritten",
    "back\x08space",
    "bell\x07",
    "new\nline",
    "next\u0085line",
    "line\u2028separator",
    "paragraph\u2029separator",
    "\u202egnitirw",
    "\u2066isolated",
    "nul\0",
    "delete\x7f",
    "tab\there",
)
"""Escapes of terminals with and without 7 bits, what moves the cursor, and what turns a line around."""
_UNSAFE: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\ud800-\udfff]")
"""All that is in the list but the line break, which programs write."""
_OWN: Final = re.compile(r"\x1b\[(?!8m)[0-9;]*m|\x1b\[\?25[hl]\r?|\r?\x1b\[(?:2K|1A)\r?|\r(?=\n)")
"""Our own: colours, and the progress line that hides and shows the cursor."""


def harmless(text: str) -> bool:
    """Whether a terminal may be sent this."""
    return _UNSAFE.search(_OWN.sub("", text)) is None


def on_a_terminal(*words: str, env: Mapping[str, str] | None = None) -> str:
    """What a command writes to a terminal, on both ways."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(PROGRAM), *words],
        env=environment({"TERM": "xterm", "COLUMNS": "200", **(env or {})}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = bytearray()
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # the last one has closed it
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    process.wait(60)
    return said.decode("utf-8", "replace")


def keys(values: Sequence[str]) -> list[bytes]:
    """The same as bytes, and bytes that are no text."""
    return [*(value.encode("utf-8", "surrogatepass") for value in values), b"\xff\xfe\x1b[2J", b"\x9b2J"]
