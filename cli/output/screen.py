"""A terminal that shows something that changes: drawn over itself on a screen of its own, and given back as it was."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from virtflow.cli.output.table import cut

ENTER: Final = "\x1b[?1049h\x1b[?25l"
"""The terminal's other screen, without a cursor."""
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def watched() -> bool:
    """Whether somebody looks at standard output, on a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """``with Screen() as screen`` takes the terminal; each ``show`` replaces what is there, without flicker."""

    def show(self, lines: Sequence[str]) -> None:
        """Shows as many lines, and as much of each, as there is room for; the last one says how many are left out."""
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… {len(lines) - room + 1} more lines: a larger window shows them"]
        drawn = "".join(f"{cut(line, size.columns)}{REST_OF_LINE}\n" for line in lines)
        sys.stdout.write(HOME + drawn + REST_OF_SCREEN)
        sys.stdout.flush()

    def __enter__(self) -> Self:
        """Takes the terminal."""
        sys.stdout.write(ENTER)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Gives it back."""
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
