"""Read-only connections to libvirt, each with a thread of its own: a call that never returns holds nothing but its lane.

libvirt-python has no time limit per call, opening included. So the sampling thread never calls libvirt itself: it hands jobs to
lanes and looks at the inbox. Source of the rules (event loop first, keepalive, close()): libvirt's reference, and trials.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final

import libvirt

from virtflow.producer.hypervisor.mailbox import Call, Inbox, Opened, OpenFailed
from virtflow.runtime import settings

Connection = Any
"""libvirt's ``virConnect``; the binding has no types."""

Job = Callable[[Connection], Any]

OPENINGS: Final = 3
"""Openings given up that may hang at a time; each holds a thread and a socket."""
FIRST_PAUSE_SECONDS: Final = 0.2
STACK_BYTES: Final = 512 * 1024

_LOGGER: Final = logging.getLogger(__name__)
_loop_lock = threading.Lock()
_loops: list[threading.Thread] = []


def start_event_loop() -> None:
    """Runs libvirt's event loop in a thread of its own, once in the process and before any connection is opened.

    Without it keepalive closes the connection and no event arrives. Also keeps libvirt from printing its errors: they are raised.
    """
    with _loop_lock:
        if _loops:
            return
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()
        loop = threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True)
        _loops.append(loop)
        loop.start()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            _LOGGER.error("libvirt's event loop: %s", error)  # noqa: TRY400, libvirt's words are all there is to say
            time.sleep(1.0)


class Lane:
    """One connection and the thread that makes its calls, one after another. It lives until it is retired or can't be opened."""

    def __init__(self, name: str, config: settings.Libvirt, inbox: Inbox, prepare: Job | None = None) -> None:
        """Begin to open; ``Opened`` or ``OpenFailed`` tells. ``prepare`` runs once on the new connection before that."""
        self.name = name
        self.began = time.monotonic()
        self.opened = False
        self.given_up = False
        self.retired = False
        self._config = config
        self._inbox = inbox
        self._prepare = prepare
        self._open_calls = 0
        self._jobs: SimpleQueue[tuple[Call, Job] | None] = SimpleQueue()
        self.connection: Connection = None
        self._thread = threading.Thread(target=self._run, name=f"libvirt-{name}", daemon=True)
        self._thread.start()

    def submit(self, purpose: str, job: Job) -> Call:
        """Have ``job`` called with the connection; the call comes back through the inbox when it has ended."""
        call = Call(self, purpose, time.time(), time.monotonic())
        self._open_calls += 1
        self._jobs.put((call, job))
        return call

    def retire(self) -> None:
        """Let the lane close its connection and end as soon as its thread is free, whenever that is."""
        self.retired = True
        self._jobs.put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; whether it has ended."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def returned(self) -> None:
        """A call has come back: to be told by whoever takes it from the inbox."""
        self._open_calls -= 1

    @property
    def idle(self) -> bool:
        """Whether no call is under way or waits for its turn."""
        return self._open_calls == 0

    @property
    def alive(self) -> bool:
        """Whether the connection still stands; asks nobody."""
        with suppress(libvirt.libvirtError):
            return self.connection is not None and bool(self.connection.isAlive())
        return False

    def _run(self) -> None:
        try:
            self.connection = self._open()
        except libvirt.libvirtError as error:
            self._inbox.put(OpenFailed(self, error))
            return
        self.opened = True
        self._inbox.put(Opened(self))
        while (item := self._jobs.get()) is not None:
            self._call(*item)
        self._close()

    def _open(self) -> Connection:
        connection = libvirt.openReadOnly(self._config.uri)
        try:
            self._keep_alive(connection)
            if self._prepare:
                self._prepare(connection)
        except libvirt.libvirtError:
            with suppress(libvirt.libvirtError):
                connection.close()
            raise
        return connection

    def _keep_alive(self, connection: Connection) -> None:
        """Asks for keepalive messages; a driver within this process (``test:///default``) has none and needs none."""
        try:
            connection.setKeepAlive(self._config.keepalive_seconds, self._config.keepalive_count)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise

    def _call(self, call: Call, job: Job) -> None:
        begin = time.monotonic()
        call.started, call.began = time.time(), begin
        try:
            call.result = job(self.connection)
        except (libvirt.libvirtError, UnicodeDecodeError, OverflowError) as error:
            call.error = error
        call.seconds = time.monotonic() - begin
        call.ended = True
        self._inbox.put(call)

    def _close(self) -> None:
        connection, self.connection = self.connection, None
        with suppress(libvirt.libvirtError):
            connection.close()


@dataclass(slots=True)
class Link:
    """One connection kept open: lost ones are opened anew after growing, jittered pauses; hanging openings are given up.

    An opening that was given up is used after all when it succeeds first. ``allowed`` says whether one more may begin, because it may
    hang. ``connects`` counts the successes, but for connections that replace one that was left to a call.
    """

    name: str
    config: settings.Libvirt
    inbox: Inbox
    longest_pause: float
    prepare: Job | None = None
    rng: random.Random = field(default_factory=random.Random)
    allowed: Callable[[], bool] = lambda: True
    lane: Lane | None = None
    connects: int = 0
    error: str = ""
    _openings: list[Lane] = field(default_factory=list)
    _pause: float = FIRST_PAUSE_SECONDS
    _next: float = 0.0
    _refused: bool = False
    _replacing: bool = False

    def tend(self, now: float) -> None:
        """Begin to open a connection where there is none, the pause is over and it is allowed."""
        if self.lane is not None or now < self._next or len(self._openings) >= OPENINGS:
            return
        if self._openings and not self._overdue(self._openings[-1], now):
            return
        if self._openings and not self._openings[-1].given_up:
            self._openings[-1].given_up = True
            self.error = f"no answer within {self.config.connect_timeout_seconds:g} s"
            _LOGGER.warning("connecting to %s: %s", self.config.uri, self.error)
        self._refused = not self.allowed()
        if not self._refused:
            self._openings.append(Lane(self.name, self.config, self.inbox, self.prepare))

    def opened(self, lane: Lane) -> bool:
        """Take a lane that has opened; False when it is one too many and has been sent away."""
        if lane in self._openings:
            self._openings.remove(lane)
        if self.lane is not None:
            lane.retire()
            return False
        self.lane, self.error, self._pause = lane, "", FIRST_PAUSE_SECONDS
        self.connects += not self._replacing
        self._replacing = False
        return True

    def failed(self, lane: Lane, error: BaseException, now: float) -> None:
        """An opening has failed: wait longer before the next one."""
        if lane in self._openings:
            self._openings.remove(lane)
        self.error = str(error)
        _LOGGER.warning("connecting to %s: %s", self.config.uri, error)
        self._wait(now)

    def drop(self, lane: Lane, now: float, why: str) -> None:
        """Give up a connection that is lost or whose call never returns; a new one is opened after a pause."""
        lane.retire()
        if lane is self.lane:
            _LOGGER.warning("connection %s to %s is lost: %s", self.name, self.config.uri, why)
            self.lane, self.error = None, why
            self._wait(now)

    def leave(self, lane: Lane, now: float) -> None:
        """Leave a lane to its call, which does not come back; a new connection is opened at once."""
        lane.retire()
        if lane is self.lane:
            self.lane, self._next, self._replacing = None, now, True

    def hanging(self, now: float) -> int:
        """How many openings are past their deadline."""
        return sum(self._overdue(lane, now) for lane in self._openings)

    @property
    def opening(self) -> int:
        """How many openings are out, hanging ones among them."""
        return len(self._openings)

    def close(self) -> list[Lane]:
        """Let go of everything; the lanes whose threads may still be busy."""
        lanes = [lane for lane in (self.lane, *self._openings) if lane is not None]
        for lane in lanes:
            lane.retire()
        self.lane = None
        self._openings.clear()
        return lanes

    @property
    def due(self) -> float:
        """When ``tend`` has something to do again at the latest; infinity while the connection stands, and until something else happens."""
        if self.lane is not None or self._refused or len(self._openings) >= OPENINGS:
            return float("inf")
        given_up = self._openings[-1].began + self.config.connect_timeout_seconds if self._openings else self._next
        return max(self._next, given_up)

    def _overdue(self, lane: Lane, now: float) -> bool:
        return now - lane.began >= self.config.connect_timeout_seconds

    def _wait(self, now: float) -> None:
        longest = min(self.longest_pause, self.config.reconnect_maximum_seconds)
        self._next = now + min(self._pause, longest) * self.rng.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, longest)
