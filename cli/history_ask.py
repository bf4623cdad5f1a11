"""``virtflow history query|range|report|where``: questions to the tables."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from virtflow.cli.click_parts import Word
from virtflow.cli.output.plot import Curve, in_terminal
from virtflow.cli.output.progress import Progress
from virtflow.cli.output.rows import Units, format_switch, output_switch, raw_switch, show
from virtflow.cli.output.say import say, say_json, say_text
from virtflow.cli.output.table import print_table
from virtflow.cli.parts import part
from virtflow.cli.switches import LOG, json_switch, settings_switches
from virtflow.cli.top.vm_names import VmName
from virtflow.runtime.settings import Settings
from virtflow.schemas.catalogue.metrics import METRICS

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_557_600}
PLOT_CURVES: Final = 8
WARNED: Final = 10
"""Filesystems that a capacity report names."""


class Moment(click.ParamType):
    """A time: ISO 8601 (UTC where no zone is given), Unix seconds, or so long ago: ``90m``, ``7d``, ``now``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401, click's
        """Unix seconds."""
        if isinstance(value, float):
            return value
        if value == "now":
            return time.time()
        if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdwy])", value):
            return time.time() - float(ago[1]) * _UNITS[ago[2]]
        if re.fullmatch(r"\d{9,11}(\.\d+)?", value):
            return float(value)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-03-01T12:00, Unix seconds, or 7d for seven days ago", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class MetricName(click.ParamType):
    """A metric of VMs by its name; whether the history has it is found out there."""

    name = "metric"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The catalogue's metrics of VMs whose names begin so."""
        del ctx, param
        return [CompletionItem(metric.name, help=metric.help) for metric in METRICS if metric.of_vm and metric.name.startswith(incomplete)]


class Duration(click.ParamType):
    """So long: ``60``, ``90s``, ``5m``, ``1h``, ``1d``; ``raw`` for every sample."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401, click's
        """Seconds."""
        if isinstance(value, float):
            return value
        if value == "raw":
            return 0.0
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdwy]?)", value)
        if not found or not float(found[1]):
            self.fail(f"{value!r} is no duration; write 60, 5m, 1h, 1d, or raw", param, ctx)
        return float(found[1]) * _UNITS[found[2] or "s"]


@click.command("query")
@click.argument("sql", type=Word())
@click.option("--project", type=Word(), default="", metavar="ID", help="A project, by its id (its name where the platform has none).")
@format_switch
@raw_switch
@output_switch
@settings_switches("history.path", "history.query_seconds", "history.query_memory_bytes", *LOG)
def query(settings: Settings, *, sql: str, form: str, output: Path | None, **given: Any) -> None:  # noqa: ANN401, click's values
    """Ask the tables one SELECT.

    The tables are samples, hourly, daily, events, migrations, inventory and forgotten; vms, vcpus, networks, blocks and filesystems are views of
    samples, filesystems_hourly and filesystems_daily of the roll-ups.

    \b
    Examples:
      virtflow history query "SELECT node, count(DISTINCT uuid) FROM hourly WHERE day = '2026-03-01' GROUP BY node"
      virtflow history query --format csv "DESCRIBE hourly"
    """  # noqa: D301, click's own mark for lines that are kept
    limited = part("virtflow.history.query.limited", "history")
    shape = part("virtflow.history.query.ipc", "history").Shape("columns" if form == "parquet" else "text")
    limit = round(settings.history.query_seconds)
    with (
        limited.Asked(settings.history, given["project"], sql, shape) as asked,
        Progress() as progress,
        progress.passing("asking", limit),
    ):
        rows = asked.rows()
    show(rows, form, output, Units(given["raw"]))


@click.command("range")
@click.argument("metric", type=MetricName())
@click.option("--vm", "vms", multiple=True, required=True, type=VmName(), metavar="NAME|UUID", help="The VM, by name or UUID.")
@click.option("--from", "start", type=Moment(), default="1d", show_default=True, help="Where to begin: a time, or so long ago (10m, 7d).")
@click.option("--to", "end", type=Moment(), default="now", show_default=True, help="Where to end: a time, or so long ago.")
@click.option(
    "--step", type=Duration(), help="Distance of the points (60, 5m, 1h, 1d), or raw for every sample; a fitting one when left out."
)
@click.option("--plot", is_flag=True, help="Draw the curves in the terminal.")
@format_switch
@raw_switch
@output_switch
@settings_switches("history.path", *LOG)
def over_time(settings: Settings, *, plot: bool, form: str, output: Path | None, **given: Any) -> None:  # noqa: ANN401, click's values
    """One metric of VMs over time, from the samples or a roll-up, whichever fits.

    \b
    Examples:
      virtflow history range vm_cpu_seconds_total --vm web-1 --from 30d --step 1h
      virtflow history range vm_memory_rss_bytes --vm web-1 --vm db-1 --from 1d --plot
    """  # noqa: D301, click's own mark for lines that are kept
    series = part("virtflow.history.query.range", "history")
    store = part("virtflow.history.storage.delta", "history").Store(settings.history)
    asked = series.Range(given["metric"], given["vms"], given["start"], given["end"], given["step"])
    with Progress() as progress, progress.passing("reading"):
        answer = series.series(store, settings.history, asked)
    if not plot:
        show(answer.points, form, output, Units(given["raw"], given["metric"]))
        return
    curves = curves_of(answer.points.to_pylist(), answer.step_seconds)
    title = f"{given['metric']} ({value_of(answer.points.schema.names)}, {answer.tier.table.name})"
    say_text(in_terminal(curves[:PLOT_CURVES], title))


def value_of(names: Sequence[str]) -> str:
    """The column that is drawn."""
    return next(name for name in ("value", "avg", "increase", "running_minutes", "last") if name in names)


def curves_of(rows: Sequence[dict[str, Any]], step_seconds: float) -> list[Curve]:
    """The points as one curve for each VM and device."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = row[value_of(tuple(row))]
        if value is not None:
            told = (row["name"] or row["uuid"], row.get("mountpoint"), row.get("fstype"), row["device"])
            points.setdefault(" ".join(word for word in told if word), []).append((row["time"].timestamp(), float(value)))
    gap = 2.5 * step_seconds or 120.0
    return [Curve(name, found, gap) for name, found in points.items()]


@click.command("report")
@click.argument("kind", type=click.Choice(("usage", "capacity")))
@click.option("--month", required=True, metavar="YYYY-MM", help="The month, in UTC.")
@click.option(
    "--by",
    type=click.Choice(("project", "owner", "node", "vm", "filesystem")),
    default="project",
    show_default=True,
    help="What a row is; a filesystem of a guest in capacity reports only.",
)
@format_switch
@raw_switch
@output_switch
@settings_switches("history.path", *LOG)
def report(settings: Settings, *, form: str, output: Path | None, **given: Any) -> None:  # noqa: ANN401, click's values
    """Who used what in a month, or how full it was: CPU hours, memory GiB hours, bytes, peak and 95th percentile.

    A capacity report warns on standard error of guests' filesystems that are nearly full, or will be soon; by filesystem it lists all, the most
    urgent first.

    \b
    Examples:
      virtflow history report usage --month 2026-03 --by project
      virtflow history report capacity --month 2026-03 --by node --format csv --output march.csv
      virtflow history report capacity --month 2026-03 --by filesystem
    """  # noqa: D301, click's own mark for lines that are kept
    kind, month, by = given["kind"], given["month"], given["by"]
    module = part("virtflow.history.query.report", "history")
    if kind == "usage" and by == module.FILESYSTEM:
        raise click.UsageError("filesystems are in capacity reports: virtflow history report capacity --by filesystem")
    store = part("virtflow.history.storage.delta", "history").Store(settings.history)
    wanted, full = module.Report(kind, month, by), []
    with Progress() as progress:
        if kind == "capacity":
            rows, full = module.capacity(store, settings.history, wanted, progress)
        else:
            rows = module.report(store, settings.history, wanted, progress)
    show(rows, form, output, Units(given["raw"]))
    warn_of(full, month)


def warn_of(filling: Sequence[Any], month: str) -> None:
    """Says on standard error which filesystems are nearly full or will be, the most urgent first."""
    if not filling:
        return
    say(f"warning: filesystems that are nearly full, or soon will be: {len(filling)}", err=True)
    for each in filling[:WARNED]:
        say(f"  {each}", err=True)
    if len(filling) > WARNED:
        say(f"  and more: virtflow history report capacity --month {month} --by filesystem", err=True)


@click.command("where")
@click.argument("moment", metavar="TIME", type=Moment())
@click.option("--vm", required=True, type=VmName(), metavar="NAME|UUID", help="The VM, by name or UUID.")
@json_switch
@settings_switches("history.path", *LOG)
def where(settings: Settings, *, moment: float, vm: str, as_json: bool) -> None:
    """Which node ran a VM at a time. Exit code 1 where nothing is known of it then.

    \b
    Examples:
      virtflow history where 2026-03-14T02:00 --vm web-1
      virtflow history where 3d --vm 2f1c4c0e-8a64-4e8f-9a55-0d6f6f0a1b2c --json
    """  # noqa: D301, click's own mark for lines that are kept
    store = part("virtflow.history.storage.delta", "history").Store(settings.history)
    places = part("virtflow.history.query.placement", "history").where(store, settings.history, vm, moment)
    if as_json:
        say_json([place.fields() for place in places])
    elif places:
        rows = [(p.uuid, p.name or "-", p.node, p.state, p.reason or "-", _utc(p.time), p.source) for p in places]
        print_table(("UUID", "NAME", "NODE", "STATE", "REASON", "SEEN", "SOURCE"), rows)
    if not places:
        say(f"unknown: nothing is known of {vm} at {_utc(moment)}", err=True)
        click.get_current_context().exit(1)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
