"""The command ``virtflow top``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import click
from click.core import ParameterSource
from msgspec.structs import replace

from virtflow.cli.click_parts import Word
from virtflow.cli.output.say import say_json, say_text
from virtflow.cli.output.screen import interactive
from virtflow.cli.switches import KAFKA, config_switch, json_switch, setting_options, settings_of
from virtflow.cli.top.access import FIELDS, Access, variable
from virtflow.cli.top.client import URL, URL_VARIABLE, Client, Source
from virtflow.cli.top.lines import plain
from virtflow.cli.top.screens import Screen, draw
from virtflow.cli.top.state import VMS, State, paths
from virtflow.cli.top.vm_names import VmName
from virtflow.exporter.api.parameters import LIMIT_MAXIMUM, VM_PARAMETERS

CHOICES: Final = {parameter.name: parameter.choices for parameter in VM_PARAMETERS}
SETTINGS: Final = {"kafka": (*KAFKA, "topics.prefix"), "libvirt": ("libvirt.uri", "libvirt.discover", "producer.interval_seconds")}
"""The settings that have a switch here, by the option that they need."""
NEEDS: Final = {path.replace(".", "_"): (place,) for place, paths in SETTINGS.items() for path in paths} | {"config_file": tuple(SETTINGS)}
"""The same by a parameter's name, and the options of which one is needed for it."""
OVERHEAD_LINES: Final = 5
WIDEST: Final = 500
"""Columns where the output is no terminal: all of them fit."""


def access_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of an exporter that is not open to everybody."""
    for field, about in reversed(FIELDS.items()):
        name, metavar = f"url_{field}", "NAME" if field == "user" else "FILE"
        switch = click.option(
            f"--{name.replace('_', '-')}",
            name,
            envvar=variable(field),
            default="",
            metavar=metavar,
            help=f"{about} [env: {variable(field)}]",
        )
        command = switch(command)
    return command


@click.command()
@click.option(
    "--url",
    envvar=URL_VARIABLE,
    default=URL,
    metavar="URL",
    help=f"The exporter, or virtflow node, that is asked. [default: {URL}; env: {URL_VARIABLE}]",
)
@access_options
@click.option(
    "--sort", default="", metavar="COLUMN", help=f"Order of VMs, with - in front the largest first: {', '.join(CHOICES['sort'])}."
)
@click.option(
    "--filter",
    "text",
    type=VmName(),
    default="",
    metavar="TEXT",
    help="Only VMs whose name, title, UUID, project, node or flavor contains this.",
)
@click.option("--node", type=Word(), default="", metavar="NAME", help="Only VMs of this node.")
@click.option("--project", type=Word(), default="", metavar="ID", help="A project, by its id (its name where the platform has none).")
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
@click.option("--kafka", is_flag=True, help="Read the fleet from Kafka, as an exporter does, without one.")
@click.option("--libvirt", is_flag=True, help="Sample this host's VMs, as virtflow node does, without one.")
@config_switch
@setting_options(*SETTINGS["kafka"], *SETTINGS["libvirt"])
@json_switch
def top(*, once: bool, as_json: bool, **given: Any) -> None:  # noqa: ANN401, click's values
    """Show the fleet in the terminal: nodes, their VMs, a VM's devices, migrations and events, from an exporter, Kafka or libvirt.

    Keys are on its last line, and all of them behind ?.

    \b
    Examples:
      virtflow top
      virtflow top --url http://exporter-1:9177 --sort -steal
      virtflow top --kafka --bootstrap-servers kafka1:9092
      virtflow top --libvirt --interval 2
      virtflow top --once --flag stuck
      virtflow top --once --json --sort -memory --limit 5 | jq -r '.vms.items[].name'
    """  # noqa: D301, click's own mark for lines that are kept
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    source = _source(_place(given), given["url"], Access(**{field: given[f"url_{field}"] for field in FIELDS}))
    chosen: dict[str, Any] = {name: given[name] or "" for name in ("node", "project", "state", "flag", "sort")}
    state = State(view=VMS, filter=given["text"], **chosen)
    try:
        if once or not (interactive() and sys.stdin.isatty()):
            source.settle()
            _print_once(source, state, given["limit"], as_json=as_json)
            return
        from virtflow.cli.top.terminal import Top

        any_given = any(chosen.values()) or given["text"]
        Top(source, state if any_given else State(), given["seconds"]).run()
    finally:
        ended = source.close()
    if not ended:
        # A thread is in a call that does not return; the interpreter's own end would wait for it.
        sys.stdout.flush()
        os._exit(0)


def _place(given: Mapping[str, Any]) -> str:
    """Where the fleet is read from, a key of ``SETTINGS``; "" for an exporter. Raises ``UsageError`` for options that do not belong together."""
    context = click.get_current_context()
    typed = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    }
    places = [place for place in SETTINGS if given[place]]
    if len(places) + any(name == "url" or name.startswith("url_") for name in typed) > 1:
        raise click.UsageError("--url, --kafka and --libvirt name a source each: give one of them")
    place = places[0] if places else ""
    for name, switch in typed.items():
        if name in NEEDS and place not in NEEDS[name]:
            raise click.UsageError(f"{switch} needs {' or '.join(f'--{needed}' for needed in NEEDS[name])}")
    return place


def _source(place: str, url: str, access: Access) -> Source:
    """Who is asked; a fleet that is read here is being read by then."""
    if not place:
        return Client(url, access=access)
    from virtflow.cli.top.own_fleet import fleet_of_kafka, fleet_of_libvirt

    settings = settings_of("exporter" if place == "kafka" else "node", *SETTINGS[place])
    return fleet_of_kafka(settings) if place == "kafka" else fleet_of_libvirt(settings)


def _print_once(client: Source, state: State, limit: int, *, as_json: bool) -> None:
    """The fleet's two lines and the VMs, as wide as the terminal."""
    answers = client.all(paths(replace(state, limit=limit)))
    if as_json:
        say_json(answers)
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDEST
    screen = Screen(columns, len(answers[VMS]["items"]) + OVERHEAD_LINES, client.url)
    lines = [plain(line) for line in draw(state, answers, screen)[:-1]]
    say_text("\n".join(line.replace(">", " ", 1) if line.startswith(">") else line for line in lines))
