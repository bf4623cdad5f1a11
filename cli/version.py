"""``virtflow version``: which version this is, and of what it is made."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from virtflow.cli.output.say import say, say_json
from virtflow.cli.switches import json_switch
from virtflow.runtime.version import version as installed

PARTS = ("libvirt-python", "confluent-kafka", "faust-streaming", "fastavro", "msgspec", "aiohttp", "isal")
"""Distributions whose version matters in a report about a fault."""


@click.command()
@json_switch
def version(*, as_json: bool) -> None:
    """Print the version; with --json also those of what it is built on.

    \b
    Examples:
      virtflow version
      virtflow version --json
    """  # noqa: D301, click's own mark for lines that are kept
    if as_json:
        say_json({"virtflow": installed(), "python": platform.python_version(), "parts": _parts()})
    else:
        say(f"virtflow {installed()}")


def _parts() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PARTS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
