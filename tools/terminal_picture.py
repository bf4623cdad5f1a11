"""Draws what commands print on a terminal as an SVG: the pictures in README.md are the commands' own output.

    python -m tools.terminal_picture docs/images/terminal.svg "virtflow migrations" "virtflow history where now --vm web-1"

Each command runs in a shell, on a terminal of its own; ``virtflow`` is the one beside this Python. ``--columns`` is the terminal's width.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text


def on_a_terminal(command: str, columns: int) -> str:
    """What the command writes to a terminal, colours included; its errors and its progress go where ours go."""
    shown, terminal = pty.openpty()
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    with subprocess.Popen(["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=terminal, env=env):
        os.close(terminal)
        text = b""
        with suppress(OSError):  # how a terminal says that its other end is closed
            while chunk := os.read(shown, 65536):
                text += chunk
    os.close(shown)
    return text.decode().replace("\r\n", "\n").rstrip()


def picture(commands: Sequence[str], columns: int, hide: str) -> str:
    """The SVG of the commands and their output; what ``hide`` matches is left out of the commands' lines."""
    console = Console(record=True, width=columns, file=StringIO(), force_terminal=True)
    for command in commands:
        console.print(Text(f"$ {re.sub(hide, '', command) if hide else command}", style="bold green"))
        console.print(Text.from_ansi(on_a_terminal(command, columns)))
        console.print()
    drawn = console.export_svg(title="virtflow", unique_id="virtflow")
    return re.sub(r" *@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL)  # fonts of the web, which a repository's page does not load


def main() -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Draws what commands print on a terminal as an SVG.")
    parser.add_argument("file", type=Path)
    parser.add_argument("commands", nargs="+")
    parser.add_argument("--columns", type=int, default=120)
    parser.add_argument("--hide", default="", help="a pattern to leave out of the commands' lines, such as a test's settings file")
    chosen = parser.parse_args()
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    chosen.file.write_text(picture(chosen.commands, chosen.columns, chosen.hide))
    return 0


if __name__ == "__main__":
    sys.exit(main())
