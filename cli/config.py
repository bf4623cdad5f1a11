"""``virtflow config``: a settings file to start from, and the settings that count here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import click
import tomlkit
import tomlkit.items

from virtflow.cli.click_parts import CommandGroup
from virtflow.cli.output.say import say_json, say_text
from virtflow.cli.output.table import print_table
from virtflow.cli.switches import config_switch, json_switch, setting, shown
from virtflow.runtime.config_files import SECTIONS, SHARED_SECTIONS
from virtflow.runtime.configuration import Row, rows, section_about, survey
from virtflow.runtime.secrets import harmless

DEFAULT_ORIGIN = "default"
SHARED = "shared"
SAMPLES = {SHARED: SHARED_SECTIONS, **SECTIONS}
"""The sections of each sample: of a part, or those of the shared file."""


@click.group(cls=CommandGroup)
def config() -> None:
    """A settings file to start from, and the settings that count here."""


@config.command()
@click.option(
    "--for",
    "services",
    multiple=True,
    type=click.Choice(list(SAMPLES)),
    help="Only what this part needs, or what all share; may be repeated.",
)
def sample(services: tuple[str, ...]) -> None:
    """Print a settings file with every setting as a comment: its default, bounds and meaning.

    \b
    Examples:
      virtflow config sample --for shared > /etc/virtflow/virtflow.toml
      virtflow config sample --for exporter > /etc/virtflow/exporter.toml
    """  # noqa: D301, click's own mark for lines that are kept
    say_text(sample_text(services).removesuffix("\n"))


@config.command()
@click.option("--for", "part", type=click.Choice(list(SECTIONS)), help="As this part has them: with its own file and secrets.")
@config_switch
@json_switch
def show(*, part: str | None, config_file: Path | None, as_json: bool) -> None:
    """Print every setting's value here and where it comes from.

    Passwords are never among them: settings name their files, and of other programs' settings only those known to be harmless are shown.

    \b
    Examples:
      virtflow config show --for producer
      virtflow config show --config ./virtflow.toml --json
    """  # noqa: D301, click's own mark for lines that are kept
    surveyed = survey(config_file, os.environ, part=part or "")
    if surveyed.errors:
        raise surveyed.errors[0]
    found = [
        (row.path, harmless(row.path, setting(surveyed.settings, row.path)), surveyed.origins.get(row.path, DEFAULT_ORIGIN))
        for row in rows()
    ]
    if as_json:
        told = {path: {"value": value, "origin": origin} for path, value, origin in found}
        say_json({"files": [str(file) for file in surveyed.files], "settings": told})
    else:
        print_table(("SETTING", "VALUE", "ORIGIN"), [(path, shown(value), origin) for path, value, origin in found])


def sample_text(services: Iterable[str] = ()) -> str:
    """The sample settings file: TOML in which every setting is a comment with its default; of all sections where no service is named.

    What is not set follows the defaults of the version that runs, so a file need not be looked through at an upgrade.
    """
    wanted = {section for service in services or SAMPLES for section in SAMPLES[service]}
    parts = ["# Settings of virtflow. Each is a comment with its default: remove the # in front of those that you change."]
    for section, members in groupby(rows(), key=lambda row: row.section):
        if section in wanted:
            parts += ["", f"# {section_about(section)}", f"[{section}]"]
            for row in members:
                parts += ["", *(f"# {line}" for line in _comment(row)), f"#{row.key} = {toml_value(row.default)}"]
    return "\n".join(parts) + "\n"


def _comment(row: Row) -> Iterator[str]:
    yield row.about
    if limits := row.bounds:
        yield limits[0].upper() + limits[1:] + "."
    overrides = [f"environment {row.variable}", *([f"switch {row.switch}"] if row.switch else [])]
    yield "Overridden by: " + ", ".join(overrides)


def toml_value(value: object) -> str:
    """A setting's value in TOML, on one line."""
    return _item(value).as_string()


def _item(value: object) -> tomlkit.items.Item:
    if not isinstance(value, dict):
        return tomlkit.item(value)
    table = tomlkit.inline_table()
    for key, inner in value.items():
        table.append(key, _item(inner))
    return table
