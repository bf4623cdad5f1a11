"""A terminal that shows something that changes, on a screen of its own that is given back at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from virtflow.cli.parts import part
from virtflow.schemas.text import safe_line


def interactive() -> bool:
    """Whether standard output is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """``with Screen() as screen`` takes the terminal; each ``show`` replaces what is there. Needs rich (``virtflow[terminal]``)."""

    def __init__(self) -> None:
        """Raises ``EnvironmentProblemError`` where rich is missing."""
        self._live = part("rich.live", "terminal").Live(screen=True, auto_refresh=False)
        self._text = part("rich.text", "terminal").Text

    def show(self, lines: Sequence[str]) -> None:
        """Shows as many lines, and as much of each, as there is room for; the last line says how many are left out."""
        room = max(1, self._live.console.height)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… {len(lines) - room + 1} more lines: a larger window shows them"]
        self._live.update(self._text("\n".join(map(safe_line, lines)), no_wrap=True, overflow="ellipsis"), refresh=True)

    def __enter__(self) -> Self:
        """Takes the terminal."""
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Gives it back."""
        self._live.stop()
