"""The real commands by their names, and command lines held against them: parsed to the last switch, without running any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from virtflow.cli.main import COMMANDS, main


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command below ``virtflow`` by the words that call it."""
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())
        else:
            yield name, command


ALL = dict(commands())
"""Every command by its name."""


def switches(command: click.Command) -> set[str]:
    """The names of a command's switches."""
    return {name for parameter in command.params for name in parameter.opts}


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
