"""A command line held against the real commands: parsed by them to the last switch, without running any."""

from __future__ import annotations

from collections.abc import Sequence

import click

from virtflow.cli.main import main


def parse_command_line(words: Sequence[str]) -> str:
    """Parse the words after ``virtflow`` with the commands' own parser; returns the command's path.

    Raises click.UsageError for a command, a switch or an argument that there is not.
    """
    command: click.Command = main
    context = click.Context(main, info_name="virtflow")
    rest = list(words)
    while isinstance(command, click.Group):
        if not rest:
            raise click.UsageError(f"{context.command_path} needs a command")
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"{context.command_path} has no command {rest[0]}")
        command, context, rest = found, click.Context(found, parent=context, info_name=rest[0]), rest[1:]
    command.parse_args(context, rest)
    return context.command_path
