"""The command ``virtflow top``."""

from __future__ import annotations

import shutil
import sys
from typing import Any, Final

import click
from msgspec.structs import replace

from virtflow.cli.output.say import say_json, say_text
from virtflow.cli.output.screen import interactive
from virtflow.cli.switches import json_switch
from virtflow.cli.top.client import Client
from virtflow.cli.top.lines import plain
from virtflow.cli.top.screens import Screen, draw
from virtflow.cli.top.state import VMS, State, paths
from virtflow.exporter.api.parameters import LIMIT_MAXIMUM, VM_PARAMETERS

URL: Final = "http://127.0.0.1:9177"
CHOICES: Final = {parameter.name: parameter.choices for parameter in VM_PARAMETERS}
OVERHEAD_LINES: Final = 5
WIDEST: Final = 500
"""Columns where the output is no terminal: all of them fit."""


@click.command()
@click.option("--url", default=URL, show_default=True, metavar="URL", help="The exporter, or virtflow node, that is asked.")
@click.option(
    "--sort", default="", metavar="COLUMN", help=f"Order of VMs, with - in front the largest first: {', '.join(CHOICES['sort'])}."
)
@click.option(
    "--filter", "text", default="", metavar="TEXT", help="Only VMs whose name, title, UUID, project, node or flavor contains this."
)
@click.option("--node", default="", metavar="NAME", help="Only VMs of this node.")
@click.option("--project", default="", metavar="ID", help="A project, by its id (its name where the platform has none).")
@click.option("--state", type=click.Choice(CHOICES["state"]), help="Only VMs in this state.")
@click.option("--flag", type=click.Choice(CHOICES["flag"]), help="Only VMs with this flag.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAXIMUM), default=20, show_default=True, help="VMs that --once prints.")
@click.option(
    "--refresh",
    "seconds",
    metavar="SECONDS",
    type=click.FloatRange(0.5, 3_600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Print the VMs once and end; so it is, too, where the output is no terminal.")
@json_switch
def top(*, once: bool, as_json: bool, **given: Any) -> None:  # noqa: ANN401, click's values
    """Show the fleet in the terminal: nodes, their VMs, a VM's devices, migrations and events, from an exporter.

    Keys are on its last line, and all of them behind ?.

    \b
    Examples:
      virtflow top
      virtflow top --url http://exporter-1:9177 --sort -steal
      virtflow top --once --flag stuck
      virtflow top --once --json --sort -memory --limit 5 | jq -r '.vms.items[].name'
    """  # noqa: D301, click's own mark for lines that are kept
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    client = Client(given["url"])
    chosen: dict[str, Any] = {name: given[name] or "" for name in ("node", "project", "state", "flag", "sort")}
    state = State(view=VMS, filter=given["text"], **chosen)
    if once or not (interactive() and sys.stdin.isatty()):
        _print_once(client, state, given["limit"], as_json=as_json)
        return
    from virtflow.cli.top.terminal import Top

    any_given = any(chosen.values()) or given["text"]
    Top(client, state if any_given else State(), given["seconds"]).run()


def _print_once(client: Client, state: State, limit: int, *, as_json: bool) -> None:
    """The fleet's two lines and the VMs, as wide as the terminal."""
    answers = client.all(paths(replace(state, limit=limit)))
    if as_json:
        say_json(answers)
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDEST
    screen = Screen(columns, len(answers[VMS]["items"]) + OVERHEAD_LINES, client.url)
    lines = [plain(line) for line in draw(state, answers, screen)[:-1]]
    say_text("\n".join(line.replace(">", " ", 1) if line.startswith(">") else line for line in lines))
