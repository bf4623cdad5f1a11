"""Rounds from all libvirt daemons of a host: finds them, asks each by its own ``Sampling``, and makes one round of what came in time.

    source = DaemonsSampler(settings)     # where `libvirt.discover` has patterns; else `producer/sampler.py`
    found = source.round()                # a Round of all daemons' VMs, as from one daemon

One thread decides for all daemons, and one queue brings what their calls say. The calls are made in the threads of a ``CallPool``.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from virtflow.producer.daemons.call_pool import CallPool
from virtflow.producer.daemons.daemon import Daemon, Messages, Surroundings
from virtflow.producer.daemons.membership import changes
from virtflow.producer.daemons.merge import DUPLICATE, Totals, merged
from virtflow.producer.daemons.sockets import DAEMONS_MAX, DaemonSocket, Identity, Scan, listens, scan
from virtflow.producer.hung_calls.executor import ProcessStates
from virtflow.producer.hypervisor.connection import Connection, open_read_only
from virtflow.producer.hypervisor.messages import Interrupted, Message, Tick
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.producer.hypervisor.status_files import StatusFiles
from virtflow.producer.source import Round
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.log import ABOUT
from virtflow.runtime.settings import Settings
from virtflow.runtime.threads import Owner
from virtflow.schemas.records import VmSnapshot

NOBODY: Final = -1
"""The number under which a message is put that no daemon's thread has to say."""
LEAST_STEP_SECONDS: Final = 0.005
"""A daemon's deadline is not looked at again sooner than that."""
OPEN_FILES: Final = 16_384
"""Each connection takes three open files, and services may have 1024 unless they ask for more."""
NEVER: Final = float("inf")

_LOGGER: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Host:
    """What is touched of the host: its sockets, how a URI is opened, who listens at a path, the process table, files. Tests hand in others."""

    scan: Callable[[Sequence[str]], Scan]
    processes: ProcessStates
    open_uri: Callable[[str], Connection] = open_read_only
    heard: Callable[[str], bool] = listens
    status_files: Callable[[Path | None], StatusFiles] = StatusFiles


def this_machine() -> Host:
    """The real host; this process is prepared for connections to hundreds of daemons."""
    allow_open_files(OPEN_FILES)
    # libvirt would otherwise start a user's daemon where none listens at a path.
    os.environ["LIBVIRT_AUTOSTART"] = "0"
    return Host(scan, Processes().states)


class DaemonsSampler:
    """Rounds from all daemons. Belongs to the thread that calls ``round`` and ``wait``; ``interrupt`` may be called from any."""

    def __init__(
        self,
        settings: Settings,
        events: Callable[[HypervisorEvent], None] | None = None,
        host: Host | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Nothing is opened before the first round. ``events`` gets what happens to VMs and their jobs."""
        host = host or this_machine()
        self._settings = settings
        self._window = settings.producer.interval_seconds * settings.producer.deadline_ratio
        self._owner = Owner("the rounds of a host's daemons")
        self._scan = host.scan
        self._messages: Messages = SimpleQueue()
        self.pool = CallPool()
        rng = rng or random.Random()  # noqa: S311, jitter
        self._surroundings = Surroundings(
            host.processes, self.pool, self._messages, rng, host.open_uri, host.heard, host.status_files, events
        )
        self._daemons: dict[int, Daemon] = {}
        self._numbers: dict[Identity, int] = {}
        self._dues: dict[int, float] = {}
        self._homes: dict[str, int] = {}
        self._number = 0
        self._gone = Totals()
        self._told = ""
        self._interrupted = False

    # -- rounds

    def round(self) -> Round:
        """The next round; see ``Source``."""
        self._owner.check()
        collected, now = time.time(), time.monotonic()
        scanned = self._look()
        deadline = now + self._window
        awaited = {number for number, daemon in self._daemons.items() if daemon.begin(collected, now)}
        awaited -= {number for number in awaited if self._daemons[number].over(now)}
        self._note_dues(self._daemons, now, waiting=False)
        while awaited and not self._interrupted and (now := time.monotonic()) < deadline:
            for number in self._step(deadline, waiting=False):
                if number in awaited and self._daemons[number].over(now):
                    awaited.discard(number)
        return self._finish(collected, time.monotonic(), scanned=scanned)

    def wait(self, until: float) -> None:
        """Take what arrives until then; see ``Source``."""
        self._owner.check()
        self._note_dues(self._daemons, time.monotonic(), waiting=True)
        while not self._interrupted and time.monotonic() < until:
            self._step(until, waiting=True)

    def _step(self, until: float, *, waiting: bool) -> Iterable[int]:
        """Take one message, or let time pass to the next deadline; the daemons that have observed something."""
        now = time.monotonic()
        item = self._take(min(until, now + self.pool.due, max(now, min(self._dues.values(), default=NEVER))))
        now = time.monotonic()
        self.pool.tick(now)
        if item is None:
            due = [number for number, at in self._dues.items() if at <= now]
            message: Message = Tick()
        else:
            due, message = [item[0]], item[1]
            self._interrupted = self._interrupted or isinstance(message, Interrupted)
        seen = [number for number in due if number in self._daemons]  # one that has gone may still have something to say
        for number in seen:
            self._daemons[number].observe(message, now, waiting=waiting)
        self._note_dues(seen, now, waiting=waiting)
        return seen

    def _take(self, until: float) -> tuple[int, Message] | None:
        left = until - time.monotonic()
        try:
            return self._messages.get(timeout=left) if left > 0 else self._messages.get_nowait()
        except Empty:
            return None

    def _note_dues(self, numbers: Iterable[int], now: float, *, waiting: bool) -> None:
        for number in numbers:
            self._dues[number] = max(self._daemons[number].due(now, waiting=waiting), now + LEAST_STEP_SECONDS)

    def _finish(self, collected: float, now: float, *, scanned: bool) -> Round:
        rounds = [daemon.finish(now) for daemon in self._daemons.values()]
        found = merged(collected, rounds, self._gone, scanned=scanned)
        self._homes = dict(found.homes)
        if found.duplicates:
            self._gone = self._gone.plus(Totals(drops={DUPLICATE: found.duplicates}))
        return found.round

    def learn(self, vms: Sequence[VmSnapshot]) -> None:
        """Learn what the record of the round says of the VMs; see ``Source``."""
        self._owner.check()
        for vm in vms:
            if (daemon := self._daemons.get(self._homes.get(vm.uuid, NOBODY))) is not None:
                daemon.sampling.learn((vm,))

    # -- which daemons there are

    def _look(self) -> bool:
        """Scan for sockets; whether the host could be searched."""
        found = self._scan(self._settings.libvirt.discover)
        known = {daemon.identity: daemon.path for daemon in self._daemons.values()}
        changed = changes(known, found)
        for socket in changed.moved:
            self._daemons[self._numbers[socket.identity]].move(socket.path)
        for socket in changed.new:
            before = changed.replaces(socket.identity)
            self._add(socket, None if before is None else self._daemons[self._numbers[before]])
        for identity in changed.gone:
            self._remove(identity)
        self._tell(found)
        return bool(found.sockets) or not found.denied

    def _add(self, socket: DaemonSocket, before: Daemon | None) -> None:
        self._number += 1
        daemon = Daemon.of(self._number, socket, self._settings, self._surroundings)
        if before is not None:
            daemon.inherit(before)
        self._daemons[self._number] = daemon
        self._numbers[socket.identity] = self._number
        _LOGGER.info("libvirt daemon found: %s", socket.path)

    def _remove(self, identity: Identity) -> None:
        number = self._numbers.pop(identity)
        daemon = self._daemons.pop(number)
        self._dues.pop(number, None)
        self._gone = self._gone.plus(daemon.totals)
        daemon.close()
        _LOGGER.info("libvirt daemon gone: %s", daemon.path)

    def _tell(self, found: Scan) -> None:
        """Log what is wrong with a scan, once until it changes."""
        told = ""
        if found.left_out:
            told = f"{found.left_out} sockets are left out: at most {DAEMONS_MAX} libvirt daemons are asked"
        elif not found.complete:
            told = "a folder of libvirt.discover can't be read now: no daemon is taken for gone meanwhile"
        elif found.denied and not found.sockets:
            told = f"{found.denied} places of libvirt.discover are not for this user to see, and no daemon is found: see docs/kubernetes.md"
        if told and told != self._told:
            _LOGGER.warning("%s", told, extra={ABOUT: told})
        self._told = told

    # -- the end

    def interrupt(self) -> None:
        """Return from waiting; see ``Source``."""
        self._messages.put((NOBODY, Interrupted()))

    def close(self, seconds: float) -> bool:
        """Close the connections; see ``Source``."""
        for daemon in self._daemons.values():
            daemon.close()
        return self.pool.close(seconds)


def allow_open_files(wanted: int) -> None:
    """Have the kernel allow this process so many open files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
