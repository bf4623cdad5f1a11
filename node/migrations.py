"""Migrations on one host alone: ``virtflow node`` follows them itself, by the processors' function, from its own libvirt's events.

One host hears one side: of an outgoing migration all but the hand-over, of an incoming one that it came. With ``--keep-last`` the
last ones are kept in a file, so that they are there again after a restart.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from virtflow.schemas.records import VmEvent, VmMigration

if TYPE_CHECKING:
    from virtflow.producer.types import HypervisorEvent

_LOGGER: Final = logging.getLogger("virtflow.node")
PARTITION: Final = 0

Show = Callable[[Iterable[VmMigration]], None]


class Kept:
    """The file of the last migrations: one JSON object a line. What can't be written or read is said, and costs nothing else."""

    def __init__(self, path: Path) -> None:
        """Nothing is touched before ``read`` or ``write``."""
        self._path = path

    def read(self) -> dict[str, VmMigration]:
        """What an earlier run kept; lines that are none are skipped."""
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            _LOGGER.warning("%s can't be read: %s; the last migrations are forgotten", self._path, error)
            return {}
        found = {}
        for number, line in enumerate(lines, 1):
            try:
                migration = msgspec.json.decode(line, type=VmMigration)
            except (msgspec.DecodeError, RecursionError) as error:
                _LOGGER.warning("%s, line %d is no migration: %s", self._path, number, error)
            else:
                found[migration.uuid] = migration
        return found

    def write(self, migrations: Iterable[VmMigration]) -> None:
        """Replaces the file by these; a reader sees the old one or the new one, whole."""
        part = self._path.with_name(self._path.name + ".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("w", encoding="utf-8") as file:
                file.writelines(_line(migration) for migration in migrations)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            _LOGGER.warning("%s can't be written: %s; after a restart the last migrations are forgotten", self._path, error)


def _line(migration: VmMigration) -> str:
    """JSON knows no NaN: a field that is absent is left out."""
    fields = msgspec.to_builtins(migration)
    return json.dumps({name: value for name, value in fields.items() if value == value}) + "\n"  # noqa: PLR0124, NaN is not itself


class Following:
    """Follows this host's migrations and hands each change to ``show``. Belongs to the sampling thread."""

    def __init__(self, node: str, silence_seconds: float, show: Show, kept: Kept | None) -> None:
        """``kept`` is where ends are kept, if anywhere; what it holds is shown at once."""
        from virtflow.processors.migrations.state import Migrations

        self._node = node
        self._boot_id = secrets.token_hex(8)
        self._sequence = 0
        self._show = show
        self._kept = kept
        self._migrations = Migrations(silence_seconds)
        self._migrations.assign((PARTITION,))
        self._newest = kept.read() if kept else {}
        self._migrations.restore({uuid: (one, PARTITION) for uuid, one in self._newest.items()}, time.monotonic())
        show(self._newest.values())

    def offer(self, happened: HypervisorEvent) -> None:
        """Takes what libvirt announced, or a poll of a job."""
        from virtflow.producer.records.vm_event import vm_event

        event = vm_event(happened, self._node, self._boot_id, self._sequence)
        self._sequence += 1
        self._take(event)

    def give_up(self) -> None:
        """Ends the migrations that have timed out; to be called every round."""
        self._shown(self._migrations.time_out(time.monotonic(), time.time()))

    def _take(self, event: VmEvent) -> None:
        self._shown(self._migrations.apply(event, PARTITION, time.monotonic()))

    def _shown(self, changes: Iterable[VmMigration]) -> None:
        listed = list(changes)
        if not listed:
            return
        before = {one.uuid: self._newest.get(one.uuid) for one in listed}
        self._newest.update({one.uuid: one for one in listed})
        self._show(listed)
        # Numbers of a running one change every second; the disk is for what a restart must not lose.
        if self._kept is not None and any(_matters(before[one.uuid], one) for one in listed):
            self._kept.write(self._newest.values())


def _matters(before: VmMigration | None, after: VmMigration) -> bool:
    return before is None or (before.id, before.result, before.type) != (after.id, after.result, after.type)
