"""One of the host's daemons: its sampling, its connection, and its VMs as they were last known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from msgspec.structs import replace

from virtflow.producer.daemons.call_pool import CallPool
from virtflow.producer.daemons.connections import Connections
from virtflow.producer.daemons.connector import Connector
from virtflow.producer.daemons.merge import DaemonRound, Totals, unanswered
from virtflow.producer.daemons.sockets import DaemonSocket, Identity, listens
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.hung_calls.executor import ProcessStates
from virtflow.producer.hypervisor.connection import Connection, Opener, Undo, open_read_only
from virtflow.producer.hypervisor.messages import Action, Announce, Message
from virtflow.producer.hypervisor.status_files import StatusFiles
from virtflow.producer.hypervisor.subscriptions import register
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.sampling import Sampling
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.settings import Settings

HUNG_CALLS: Final = 3
"""Calls that may hang at a time in one daemon, each with a thread and a connection."""
KEEPALIVE_INTERVALS: Final = 1.5
"""Sampling intervals of silence before a keepalive message: none is sent while each round asks something."""
KEEPALIVE_MOST_SECONDS: Final = 60
HELD_ROUNDS: Final = 1
"""Rounds for which the VMs of a daemon are still shown on whose socket nobody listens: it may be about to start again."""

Messages = SimpleQueue[tuple[int, Message]]
"""What all daemons' threads have to say, each message with the daemon's number."""


class DaemonOutlet:
    """Puts what one daemon's threads have to say into the queue of all."""

    __slots__ = ("_number", "_put")

    def __init__(self, number: int, messages: Messages) -> None:
        """For the daemon of that number."""
        self._number = number
        self._put = messages.put

    def put(self, message: Message) -> None:
        """Hand a message over; never waits."""
        self._put((self._number, message))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the daemons of a host share: how a URI is opened, who listens at a path, the process table, the files of a folder, the threads."""

    processes: ProcessStates
    pool: CallPool
    messages: Messages
    rng: random.Random
    open_uri: Callable[[str], Connection] = open_read_only
    heard: Callable[[str], bool] = listens
    status_files: Callable[[Path | None], StatusFiles] = StatusFiles
    events: Callable[[HypervisorEvent], None] | None = None


def settings_of(settings: Settings, uri: str) -> Settings:
    """The settings for one of many daemons."""
    silence = min(KEEPALIVE_MOST_SECONDS, round(KEEPALIVE_INTERVALS * settings.producer.interval_seconds))
    keepalive = max(settings.libvirt.keepalive_seconds, silence)
    return replace(
        settings,
        libvirt=replace(settings.libvirt, uri=uri, keepalive_seconds=keepalive),
        producer=replace(settings.producer, hung_calls_max=min(HUNG_CALLS, settings.producer.hung_calls_max)),
    )


@dataclass(slots=True)
class _Known:
    """What the daemon said last of its VMs, and in how many rounds nobody has listened since."""

    readings: tuple[Reading, ...] = ()
    rounds_refused: int = 0


@dataclass(slots=True)
class Daemon:
    """One daemon. Belongs to the sampling thread."""

    number: int
    identity: Identity
    sampling: Sampling
    totals: Totals
    """What its rounds have counted."""
    _connector: Connector
    _connections: Connections
    _surroundings: Surroundings
    _status_files: StatusFiles
    _known: _Known = field(default_factory=_Known)
    _awaited: bool = True

    @classmethod
    def of(cls, number: int, socket: DaemonSocket, settings: Settings, surroundings: Surroundings) -> Daemon:
        """A daemon that has been found. Nothing is opened."""
        connector = Connector(socket, surroundings.open_uri, surroundings.heard)
        own = settings_of(settings, connector.uri)
        outlet = DaemonOutlet(number, surroundings.messages)

        def prepare(connection: Connection) -> Undo:
            return register(connection, outlet).end

        budget = CallBudget(own.producer.hung_calls_max)
        follows = surroundings.events is not None
        return cls(
            number,
            socket.identity,
            Sampling(own, budget, surroundings.rng, surroundings.processes, follows=follows),
            Totals(),
            connector,
            Connections(Opener(own.libvirt, connector.connect), outlet, prepare, surroundings.pool),
            surroundings,
            surroundings.status_files(connector.status_folder),
        )

    @property
    def path(self) -> str:
        """Of its socket, by which it is reached now."""
        return self._connector.path

    def move(self, path: str) -> None:
        """Another path leads to its socket; a connection that stands is not touched."""
        self._connector.path = path
        self._status_files = self._surroundings.status_files(self._connector.status_folder)

    def inherit(self, before: Daemon) -> None:
        """This daemon has taken the place of another one, and with it the VMs."""
        self._known = _Known(before._known.readings)

    # -- rounds, as in ``Sampling``

    def begin(self, collected: float, now: float) -> bool:
        """A round begins; whether it should wait for this daemon, because that is new, answered in the last round, or can be asked."""
        for lost in self._connections.lost():
            self.perform(self.sampling.observe(lost, now, waiting=True))
        awaited = self._awaited or self.sampling.ready
        self.perform(self.sampling.begin(collected, now, self._status_files.read()))
        return awaited

    def over(self, now: float) -> bool:
        """Whether the round need not wait for this daemon any longer: it has answered, or nobody listens."""
        return self._connector.refused or self.sampling.complete(now)

    def observe(self, message: Message, now: float, *, waiting: bool) -> None:
        """Learn what has happened, and do what follows."""
        self.perform(self.sampling.observe(message, now, waiting=waiting))

    def due(self, now: float, *, waiting: bool) -> float:
        """The next deadline."""
        return self.sampling.due if waiting else self.sampling.round_due(now)

    def finish(self, now: float) -> DaemonRound:
        """The round goes out."""
        found = self.sampling.finish(now)
        self._awaited = found.up
        self.totals = Totals.of(found)
        if found.up:
            self._known = _Known(found.readings)
            return DaemonRound(self.number, found)
        if self._connector.refused:
            self._known.rounds_refused += 1
            if self._known.rounds_refused > HELD_ROUNDS:
                self._known.readings = ()
        return DaemonRound(self.number, found, tuple(unanswered(one) for one in self._known.readings))

    def close(self) -> None:
        """Let go of the connection."""
        self.perform(self.sampling.close())

    def perform(self, actions: Iterable[Action]) -> None:
        """Carry out what was decided."""
        events = self._surroundings.events
        for action in actions:
            if not isinstance(action, Announce):
                self._connections.perform(action)
            elif events is not None:
                events(action.event)
