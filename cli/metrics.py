"""``virtflow metrics``: the catalogue of metrics, as it is in the code."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from virtflow.cli.click_parts import CommandGroup
from virtflow.cli.output.say import say_json
from virtflow.cli.output.table import print_table
from virtflow.cli.switches import json_switch
from virtflow.schemas.catalogue.metrics import METRICS
from virtflow.schemas.catalogue.types import Group, Metric


@click.group(cls=CommandGroup)
def metrics() -> None:
    """The catalogue of metrics."""


@metrics.command("list")
@click.option(
    "--group", "groups", multiple=True, type=click.Choice([group.value for group in Group]), help="Only this group; may be repeated."
)
@json_switch
def list_metrics(*, groups: tuple[str, ...], as_json: bool) -> None:
    """Print every metric: name, type, unit, labels, group, source and meaning.

    \b
    Examples:
      virtflow metrics list --group core
      virtflow metrics list --json | jq -r '.[].name'
    """  # noqa: D301, click's own mark for lines that are kept
    chosen = [metric for metric in METRICS if not groups or metric.group.value in groups]
    if as_json:
        say_json([entry(metric) for metric in chosen])
    else:
        rows = [(m.name, m.type.value, ",".join(labels(m)), m.group.value, m.help) for m in chosen]
        print_table(("NAME", "TYPE", "LABELS", "GROUP", "MEANING"), rows)


def labels(metric: Metric) -> tuple[str, ...]:
    """All labels of a metric's series."""
    return ("uuid", "name", *metric.labels) if metric.of_vm else metric.labels


def entry(metric: Metric) -> dict[str, Any]:
    """All that is known of a metric, for programs."""
    return {
        "name": metric.name,
        "type": metric.type.value,
        "unit": metric.unit,
        "help": metric.help,
        "group": metric.group.value,
        "labels": list(labels(metric)),
        "ephemeral": metric.ephemeral,
        "stability": metric.stability.value,
        "source": {"kind": type(metric.source).__name__.lower(), **asdict(metric.source)},
    }
