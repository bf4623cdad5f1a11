"""Command-line switches generated from the settings' rows, so that name, help and default are declared once, in ``runtime/sections/``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import cache, wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from msgspec import inspect

from virtflow.runtime.config_files import CONFIG_VARIABLE, DEFAULT_FOLDER, part_of
from virtflow.runtime.configuration import Row, load, rows
from virtflow.runtime.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

KAFKA: Final = ("kafka.bootstrap_servers",)
EPHEMERAL: Final = ("exporter.always_export", "exporter.absent_value", "exporter.keep_last")
GUEST: Final = ("guest.enabled", "guest.balloon_period_seconds")
WEB: Final = ("web.config_file",)
LOG: Final = ("log.level", "log.format")

config_switch: Final = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"Settings file (TOML), or the folder of virtflow.toml and the part's own. [default: {DEFAULT_FOLDER}; env: {CONFIG_VARIABLE}]",
)
json_switch: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

_METAVARS: Final = (
    ("_file", "FILE"),
    ("_seconds", "SECONDS"),
    ("_servers", "HOST:PORT,..."),
    ("uri", "URI"),
    ("url", "URL"),
    ("listen", "ADDRESS:PORT"),
)


@cache
def row_of(path: str) -> Row:
    """The row of a setting by its ``section.key``."""
    return next(row for row in rows() if row.path == path)


def settings_switches(*paths: str) -> Callable[[Command], Callable[..., Any]]:
    """Gives a command ``--config`` and the switches of the settings ``paths``; it is called with the loaded ``Settings`` first."""

    def decorate(command: Command) -> Callable[..., Any]:
        @wraps(command)
        def with_settings(config_file: Path | None, **given: Any) -> Any:  # noqa: ANN401, click's values
            return command(load(config_file, os.environ, given_switches(given, paths), part_here()), **given)

        return config_switch(setting_options(*paths)(with_settings))

    return decorate


def settings_of(part: str, *paths: str) -> Settings:
    """The settings that a part has by ``--config`` and the switches ``paths`` of the running command, which need not be that part's."""
    given = dict(click.get_current_context().params)
    return load(given.pop("config_file"), os.environ, given_switches(given, paths), part)


def part_here() -> str:
    """The part whose settings the running command reads; "" for a command that has none."""
    context = click.get_current_context()
    while context.parent is not None and context.parent.parent is not None:
        context = context.parent
    return part_of(context.info_name or "")


def setting_options(*paths: str) -> Callable[[Command], Callable[..., Any]]:
    """Gives a command the switches of the settings ``paths``, each with the help, the default and the variable of its row."""

    def decorate(command: Command) -> Callable[..., Any]:
        decorated: Callable[..., Any] = command
        for path in reversed(paths):
            decorated = _option(row_of(path))(decorated)
        return decorated

    return decorate


def given_switches(given: dict[str, Any], paths: Iterable[str]) -> dict[str, object]:
    """Removes the values of the switches ``paths`` from ``given`` and returns them by setting name; None for an unused switch.

    Values are passed on as text: the settings' own rules check them, so that an error reads the same for every origin.
    """
    return {path: given.pop(_parameter(path)) for path in paths}


def metavar(row: Row) -> str:
    """The placeholder for the value in a help text: its choices, or the kind of value."""
    match row.type:
        case inspect.LiteralType(values=values):
            return "[" + "|".join(str(value) for value in values if value) + "]"
        case inspect.ListType():
            return "NAME,..."
    by_name = next((word for end, word in _METAVARS if row.key.endswith(end)), "")
    return by_name or ("NUMBER" if isinstance(row.type, inspect.IntType | inspect.FloatType) else "NAME")


def shown(value: object) -> str:
    """A setting's value as a person would type it on the command line."""
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def setting(settings: Settings, path: str) -> Any:  # noqa: ANN401, any setting's value
    """The value of the setting ``section.key``."""
    section, _, key = path.partition(".")
    return getattr(getattr(settings, section), key)


def _parameter(path: str) -> str:
    return path.replace(".", "_")


def _option(row: Row) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = shown(row.default)
    notes = [f"default: {default}"] if default else []
    text = f"{row.about} [{'; '.join([*notes, f'env: {row.variable}'])}]"
    if isinstance(row.type, inspect.BoolType):
        # Without the switch the value is None, not false: the file's or the environment's counts then.
        return click.option(f"{row.switch}/--no-{row.switch.removeprefix('--')}", _parameter(row.path), default=None, help=text)
    return click.option(row.switch, _parameter(row.path), metavar=metavar(row), help=text)
