"""The one place where commands print. What comes from outside (names, keys, headers, other programs' words) can't steer the terminal.

    say("web-1", "db-1")         # a line each, whatever is in them
    say_json(found)               # for programs: ASCII
    say_data(csv)                 # for programs: as it is, but made harmless where a person looks at it

A test forbids every other way to print.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from virtflow.schemas.text import safe_line, safe_lines


def say(*lines: str, err: bool = False, mark: str = "") -> None:
    """Prints lines of text, to standard error with ``err``; ``mark`` comes before the first one and may have colours of ours."""
    for line in lines:
        click.echo(mark + safe_line(line), err=err)
        mark = ""


def say_text(text: str, *, err: bool = False, bold: bool = False) -> None:
    """Prints text of several lines whose parts are known to have no line break of a stranger's; the first one may be ``bold``."""
    first, newline, rest = safe_lines(text).partition("\n")
    click.echo((click.style(first, bold=True) if bold else first) + newline + rest, err=err)


def say_json(found: Any, indent: int | None = 2) -> None:  # noqa: ANN401, whatever JSON holds
    """Prints JSON, in which all but ASCII is escaped."""
    click.echo(json.dumps(found, indent=indent).replace("\x7f", "\\u007f"))


def say_data(data: bytes) -> None:
    """Writes data for programs to standard output; on a terminal it is text for a person."""
    if sys.stdout.isatty():
        data = safe_lines(data.decode("utf-8", "replace")).encode("utf-8", "replace")
    click.echo(data, nl=False)
