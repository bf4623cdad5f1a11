"""What the commands need beside click's own: groups that name the command that was probably meant, and words in UTF-8 whatever the locale is."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import click

from virtflow.schemas.text import safe_line

CUTOFF: Final = 0.6
"""How alike two names have to be, from 0 to 1 (source: difflib's ratio)."""


_UNREAD: Final = re.compile("[\udc80-\udcff]")
"""Bytes of the command line that the locale has no characters for: Python hands them over as surrogates."""


class Word(click.ParamType):
    """A text as it was typed, which is UTF-8 also where the locale is not, as a service's or a cron job's may be. Not for paths, which are bytes."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401, click's
        """The text; fails where its bytes are no UTF-8."""
        word = str(value)
        try:
            return os.fsencode(word).decode() if _UNREAD.search(word) else word
        except UnicodeError:
            self.fail(f"{safe_line(word)!r} is no UTF-8", param, ctx)


class CommandGroup(click.Group):
    """A click group whose error for an unknown command names the most similar one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As the class has it; raises ``UsageError`` for an unknown command."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1, cutoff=CUTOFF)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)


class LazyGroup(CommandGroup):
    """A group that imports a command on demand; ``places`` says where each is (``module:attribute``), in the order of the help."""

    def __init__(self, *args: Any, places: Mapping[str, str], **options: Any) -> None:  # noqa: ANN401, click's own
        """The others are click's."""
        super().__init__(*args, **options)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        del ctx
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None where there is none of that name."""
        del ctx
        if cmd_name not in self._places:
            return None
        module, _, attribute = self._places[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command
