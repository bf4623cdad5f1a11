"""Rounds from libvirt: the edge around ``sampling.py``, with its clock, its inbox and its workers.

    source = Sampler(settings)            # connects in the background
    found = source.round()                # a Round: at the latest interval x deadline_ratio later, also when libvirt is away
    source.close(seconds=2.0)

``virtflow.producer.service`` runs rounds on the grid and makes records of them; ``virtflow.producer.replay.Recording`` is the
other ``Source``: a file instead of libvirt.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.hung_calls.executor import warn_of_limit
from virtflow.producer.hypervisor.connection import Connection, Opener, Undo
from virtflow.producer.hypervisor.mailbox import Inbox
from virtflow.producer.hypervisor.messages import Action, Announce, Interrupted, Tick
from virtflow.producer.hypervisor.qemu_events import QemuStatus
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.producer.hypervisor.status_files import StatusFiles, folder_of
from virtflow.producer.hypervisor.subscriptions import register
from virtflow.producer.hypervisor.workers import Workers
from virtflow.producer.sampling import SAFE, Sampling
from virtflow.producer.source import Round
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Settings
from virtflow.runtime.threads import Owner
from virtflow.schemas.records import VmSnapshot


@dataclass(frozen=True, slots=True)
class Host:
    """What a sampler touches of its host: how it connects to libvirt, the process table, the VMs' status files. Tests hand in others."""

    opener: Opener
    processes: Processes
    status_files: StatusFiles = field(default_factory=lambda: StatusFiles(None))

    @classmethod
    def of(cls, settings: Settings) -> Host:
        """The real one."""
        return cls(Opener(settings.libvirt), Processes(), StatusFiles(folder_of(settings.libvirt.uri)))


class Sampler:
    """Rounds from one libvirt daemon. Belongs to the thread that calls ``round`` and ``wait``; ``interrupt`` may be called from any."""

    def __init__(
        self,
        settings: Settings,
        events: Callable[[HypervisorEvent], None] | None = None,
        budget: CallBudget | None = None,
        host: Host | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Begin to connect, never waiting. ``events`` gets what happens to VMs and their jobs; ``budget`` is shared with other callers."""
        host = host or Host.of(settings)
        warn_of_limit(settings.producer.hung_calls_max)
        self.budget = budget or CallBudget(settings.producer.hung_calls_max)
        self._owner = Owner("a sampler's rounds")
        self._inbox = Inbox()
        self._events = events
        listens = events is not None and settings.libvirt.migration_status
        self._status = QemuStatus(settings.libvirt.uri, self._inbox) if listens else None
        self._status_files = host.status_files
        self._workers = Workers(host.opener, self._inbox, {SAFE: self._prepare})
        rng = rng or random.Random()  # noqa: S311, jitter
        self._sampling = Sampling(settings, self.budget, rng, host.processes.states, follows=events is not None)
        self._perform(self._sampling.observe(Tick(), time.monotonic(), waiting=True))

    def _prepare(self, connection: Connection) -> Undo:
        """Once per connection, in its worker's thread: the callbacks; what ends them."""
        subscription = register(connection, self._inbox)
        if self._status is not None:
            self._status.listen()
        return subscription.end

    # -- rounds

    def round(self) -> Round:
        """The next round; see ``Source``."""
        self._owner.check()
        sampling = self._sampling
        for lost in self._workers.lost():
            self._perform(sampling.observe(lost, time.monotonic(), waiting=True))
        self._perform(sampling.begin(time.time(), time.monotonic(), self._status_files.read()))
        while not (sampling.interrupted or sampling.complete(now := time.monotonic())) and now < sampling.deadline:
            message = self._inbox.take(sampling.round_due(now))
            self._perform(sampling.observe(message or Tick(), time.monotonic()))
        return sampling.finish(time.monotonic())

    def wait(self, until: float) -> None:
        """Take what arrives until then; see ``Source``."""
        self._owner.check()
        while not self._sampling.interrupted and (now := time.monotonic()) < until:
            message = self._inbox.take(min(until, max(now, self._sampling.due)))
            self._perform(self._sampling.observe(message or Tick(), time.monotonic(), waiting=True))

    def learn(self, vms: Sequence[VmSnapshot]) -> None:
        """Learn what the record of the round says of the VMs; see ``Source``."""
        self._owner.check()
        self._sampling.learn(vms)

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if not isinstance(action, Announce):
                self._workers.perform(action)
            elif self._events is not None:
                self._events(action.event)

    # -- the end

    def interrupt(self) -> None:
        """Return from waiting; see ``Source``."""
        self._inbox.put(Interrupted())

    def close(self, seconds: float) -> bool:
        """Close the connections; see ``Source``."""
        self._perform(self._sampling.close())
        return self._workers.close(seconds)
