"""``virtflow completion``: what a shell needs to complete virtflow's commands and switches."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from virtflow.cli.main import main
from virtflow.cli.output.say import say_text
from virtflow.schemas.errors import EnvironmentProblemError


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      virtflow completion bash > /etc/bash_completion.d/virtflow
      virtflow completion zsh > ~/.zfunc/_virtflow
      virtflow completion fish > ~/.config/fish/completions/virtflow.fish
    """  # noqa: D301, click's own mark for lines that are kept
    kind = get_completion_class(shell)
    if kind is None:
        raise EnvironmentProblemError(thing="shell", value=shell, why="click knows no completion for it", fix="use bash, zsh or fish")
    say_text(kind(main, {}, "virtflow", "_VIRTFLOW_COMPLETE").source())
