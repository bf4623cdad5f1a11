"""``virtflow migrations``: the fleet's running and last migrations, how far they are and whether they will end."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

import click

from virtflow.cli.bus.newest import learn
from virtflow.cli.bus.tap import reading, reading_codec
from virtflow.cli.output.record_text import as_json, clock, line
from virtflow.cli.output.say import say, say_json, say_text
from virtflow.cli.output.screen import Screen, interactive
from virtflow.cli.output.table import fitted, plain, printable
from virtflow.cli.switches import KAFKA, json_switch, settings_switches
from virtflow.processors.migrations.convergence import verdict
from virtflow.runtime.settings import Settings
from virtflow.schemas.jobs import Result
from virtflow.schemas.records import VmMigration
from virtflow.schemas.topics import MIGRATIONS

HEAD: Final = ("VM", "FROM", "TO", "RESULT", "PROGRESS", "LEFT", "RATE", "DIRTY", "PASS", "TIME", "END", "VERDICT")
RIGHT: Final = frozenset({5, 6, 7, 8, 9, 10})
SHOWN: Final = 20
BAR: Final = 12
NAME_LENGTH: Final = 40
NAME_SHARE: Final = 6
"""A name takes no more than this part of a terminal's width, so that there is room for the verdict."""
FULL, EMPTY = "█", "·"
UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
STEP: Final = 1024
READ_SECONDS: Final = 1.0
SPARE: Final = ("DIRTY", "TIME", "PASS", "LEFT", "RATE", "END")
"""Columns that a narrow terminal does without, in this order."""
NONE_SEEN: Final = "No migration has been seen."


@click.command()
@settings_switches(*KAFKA, "topics.prefix")
@click.option("--watch", is_flag=True, help="Go on and show every change, until Ctrl-C.")
@click.option("--all", "everything", is_flag=True, help=f"Every VM's last migration, not only the running and the {SHOWN} newest ones.")
@json_switch
def migrations(settings: Settings, *, watch: bool, everything: bool, as_json: bool) -> None:
    """Show the fleet's running and last migrations: progress, rates, whether they converge, when they would end.

    \b
    Examples:
      virtflow migrations
      virtflow migrations --watch
      virtflow migrations --json | jq -r '.[] | select(.result == "failed") | .name'
    """  # noqa: D301, click's own mark for lines that are kept
    known: dict[str, VmMigration] = {}
    codec = reading_codec(settings)
    with reading(settings, MIGRATIONS) as reader:
        while not reader.caught_up:
            learn(known, reader.read(READ_SECONDS), codec, VmMigration, "a migration of")
        shown = chosen(known.values(), everything=everything)
        if not watch:
            _print(shown, as_json=as_json)
        elif as_json or not interactive():
            show = _json_line if as_json else _line
            _each(show, shown)
            while True:
                _each(show, learn(known, reader.read(READ_SECONDS), codec, VmMigration, "a migration of"))
        else:
            with Screen() as screen:
                while True:
                    screen.show(_screen(known.values(), chosen(known.values(), everything=everything), time.time()))
                    learn(known, reader.read(READ_SECONDS), codec, VmMigration, "a migration of")


def chosen(found: Iterable[VmMigration], *, everything: bool) -> list[VmMigration]:
    """The migrations to show, in order: the running ones, then the newest of the others, or all of them with ``everything``."""
    listed = ordered(found)
    running = sum(one.result == Result.RUNNING for one in listed)
    return listed if everything else listed[: running + SHOWN]


def _print(shown: Sequence[VmMigration], *, as_json: bool) -> None:
    if as_json:
        say_json([told(one) for one in shown])
    elif not shown:
        say(NONE_SEEN)
    elif sys.stdout.isatty():
        say_text(_table(shown, time.time()))
    else:
        say_text(plain(HEAD, [cells(one, time.time()) for one in shown], RIGHT))


def _table(shown: Sequence[VmMigration], now: float) -> str:
    """The table for the terminal as wide as it is now."""
    columns = shutil.get_terminal_size().columns
    rows = [cells(one, now, min(NAME_LENGTH, max(columns // NAME_SHARE, 8))) for one in shown]
    return fitted(HEAD, rows, RIGHT, columns, SPARE)


def _screen(known: Collection[VmMigration], shown: Sequence[VmMigration], now: float) -> list[str]:
    """The lines of the live screen."""
    running = sum(one.result == Result.RUNNING for one in known)
    title = f"{running} running, {len(known) - running} ended; {clock(now)[11:19]}, Ctrl-C ends"
    if not shown:
        return [title, "", NONE_SEEN]
    return [title, "", *_table(shown, now).splitlines()]


def _each(show: Callable[[VmMigration], str], found: Iterable[VmMigration]) -> None:
    for one in found:
        say(show(one))


def _json_line(one: VmMigration) -> str:
    return json.dumps(told(one))


def _line(one: VmMigration) -> str:
    moment = one.updated_timestamp_seconds if one.result == Result.RUNNING else one.ended_timestamp_seconds
    return "  ".join(word for word in (clock(moment), line(one), bar(one.progress_ratio)) if word)


def ordered(found: Iterable[VmMigration]) -> list[VmMigration]:
    """Running ones first, longest first; then the others, the newest end first."""
    listed = list(found)
    running = [one for one in listed if one.result == Result.RUNNING]
    ended = [one for one in listed if one.result != Result.RUNNING]
    running.sort(key=lambda one: (math.isnan(one.started_timestamp_seconds), one.started_timestamp_seconds, one.uuid))
    ended.sort(key=lambda one: (math.isnan(one.ended_timestamp_seconds), -one.ended_timestamp_seconds, one.uuid))
    return running + ended


def told(migration: VmMigration) -> dict[str, Any]:
    """The migration for programs: the record's present fields, and its convergence as text."""
    return {**as_json(migration), "verdict": verdict(migration)}


def cells(migration: VmMigration, now: float, longest: int = NAME_LENGTH) -> tuple[str, ...]:
    """The migration's line in the table, names at most ``longest`` characters long; ``now`` is Unix seconds."""
    running = migration.result == Result.RUNNING
    seconds = migration.expected_remaining_seconds if running else math.nan
    return (
        printable(migration.name or migration.uuid, longest),
        printable(migration.source or "?", longest),
        printable(migration.destination or "?", longest),
        migration.result,
        bar(migration.progress_ratio),
        size(migration.data_remaining_bytes) if running else "",
        f"{size(migration.memory_bytes_per_second)}/s" if migration.memory_bytes_per_second > 0 else "",
        f"{size(migration.memory_dirty_bytes_per_second)}/s" if migration.memory_dirty_bytes_per_second > 0 else "",
        str(migration.memory_iteration) if migration.memory_iteration >= 0 else "",
        duration(migration.elapsed_seconds),
        f"in {duration(seconds)}" if running and not math.isnan(seconds) else ago(migration.ended_timestamp_seconds, now),
        printable(verdict(migration), 80) if running or migration.reason else "",
    )


def bar(ratio: float) -> str:
    """Progress as a bar with its percentage; "" where it is not known. Never more than full."""
    if math.isnan(ratio):
        return ""
    part_ = min(1.0, max(0.0, ratio))
    filled = int(part_ * BAR)
    return f"{FULL * filled}{EMPTY * (BAR - filled)} {int(part_ * 100):3d} %"


def size(value: float) -> str:
    """Bytes for people; "" where they are not known."""
    if value < 0:
        return ""
    unit = 0
    while value >= STEP and unit < len(UNITS) - 1:
        value, unit = value / STEP, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {UNITS[unit]}"  # noqa: PLR2004, three digits


def duration(seconds: float) -> str:
    """A duration for people; "" where it is not known."""
    if math.isnan(seconds):
        return ""
    minutes, rest = divmod(max(seconds, 0.0), 60)
    if minutes < 1:
        return f"{rest:.1f} s"
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {int(rest):02d} s"


def ago(moment: float, now: float) -> str:
    """How long ago something was."""
    return f"{duration(now - moment)} ago" if not math.isnan(moment) else ""
