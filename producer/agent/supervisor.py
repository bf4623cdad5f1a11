"""The producer's side of the guest-agent helper process: starts it, exchanges frames with it, kills it, restarts it after a pause.

    guests = GuestAgents(settings, budget)   # only where the settings ask for it: see `selection.wanted`
    guests.start()
    guests.samples()                         # what is known of each VM now; never waits for anything but a lock held for microseconds
    guests.close(seconds=2.0)

``scheduler.py`` makes all decisions; this module has the thread, the clock, the pipes and the process.
"""

from __future__ import annotations

import logging
import os
import random
import selectors
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from virtflow.producer.agent.backoff import Restarts
from virtflow.producer.agent.ipc import Answered, Ask, Beat, Ended, FromProcess, Happened, Reader, Start, Up, encoded
from virtflow.producer.agent.poll_cycle import Down, Limits, Observation, Ticked, Vm
from virtflow.producer.agent.scheduler import PAUSING, Schedule
from virtflow.producer.agent.selection import allowed, asks
from virtflow.producer.hung_calls.budget import CallBudget
from virtflow.producer.records.node_health import GuestHealth
from virtflow.runtime.process.child import command, environment
from virtflow.runtime.process.frames import BrokenFrameError
from virtflow.runtime.process.usage import resident_bytes
from virtflow.runtime.settings import Settings
from virtflow.runtime.threads import Owner
from virtflow.schemas.records import GuestSample
from virtflow.schemas.text import printable

READ_BYTES: Final = 65_536
TICK_SECONDS: Final = 0.5
SPREAD: Final = 0.25
END_SECONDS: Final = 1.0
"""How long the process may take to end by itself when the producer does."""
ARENAS: Final = {"MALLOC_ARENA_MAX": "1"}
"""Each of glibc's arenas reserves 64 MiB of the address space that is limited."""
LIBVIRT, HUNG, BROKEN, KILLED, MEMORY, DEFECT = "libvirt", "hung", "broken", "killed", "memory", "defect"
STRIKING: Final = frozenset({LIBVIRT, BROKEN, MEMORY, DEFECT})
"""Ends that an answer may have brought about: whoever was asked is a suspect."""

_LOGGER: Final = logging.getLogger(__name__)


def limits(settings: Settings, *, once: bool = False) -> Limits:
    """The bounds that follow from the settings; for a single turn of every VM (``once``) at once, each guest's balloon driver looked for."""
    guest = settings.guest
    return Limits(
        cycle=guest.cycle_seconds,
        timeout=guest.timeout_seconds,
        per_minute=guest.calls_per_minute,
        in_flight=guest.calls_in_flight,
        agent=asks(guest),
        period=guest.balloon_period_seconds > 0,
        memory=once,
        spread=0.0 if once else SPREAD,
    )


@dataclass(slots=True)
class _Life:
    """A running process, its output, and the time of its last frame."""

    process: subprocess.Popen[bytes]
    began: float
    heard: float
    up: bool = False
    why: str = ""
    text: str = ""
    reader: Reader = field(default_factory=lambda: Reader(of_process=True))

    @property
    def out(self) -> int:
        """Where its frames come from."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def write(self, data: bytes) -> None:
        """Hand it frames; they always fit into the pipe, as few calls are under way."""
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), data)


class GuestAgents:
    """Guest-agent data of all guests of the host.

    Its thread alone talks to the process and replaces ``_life``; others read that once, whether it is up and its process id. ``_lock`` guards
    what else they read: the schedule and the counts.
    """

    def __init__(self, settings: Settings, budget: CallBudget, rng: random.Random | None = None, *, once: bool = False) -> None:
        """Nothing runs before ``start``; each call into a VM takes a lease of ``budget``."""
        rng = rng or random.Random()  # noqa: S311, jitter
        guest = settings.guest
        self.schedule = Schedule(limits(settings, once=once), lambda uuid, name, seen: allowed(guest, uuid, name, seen), rng, budget)
        self._settings = settings
        self._restarts = Restarts(guest.restart_maximum_seconds, rng)
        self._counted: Counter[str] = Counter()
        self._periods = 0
        self._failing: set[str] = set()
        self._lock = threading.Lock()
        self._owner = Owner("the guest agents' schedule, but for what is read under its lock,")
        self._life: _Life | None = None
        self._start_at = 0.0
        self._tick_at = 0.0
        self._stop = False
        self.settled = threading.Event()
        """Every VM has had its turn, or the process could not begin."""
        self.problem = ""
        """Why the newest process ended before libvirt answered, in words."""
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="guest-agents", daemon=True)

    # -- for the producer

    def start(self) -> None:
        """Start; returns immediately."""
        self._thread.start()

    def samples(self) -> dict[str, GuestSample]:
        """What is known of each VM now."""
        with self._lock:
            return self.schedule.held.samples(time.monotonic())

    @property
    def lost(self) -> int:
        """Hung calls; each occupies one of libvirtd's workers."""
        with self._lock:
            return self.schedule.lost

    def vms(self) -> list[Vm]:
        """How each VM stands that may be asked."""
        with self._lock:
            return self.schedule.asked()

    def health(self) -> GuestHealth:
        """What the node's health tells of it."""
        life = self._life
        with self._lock:
            schedule = self.schedule
            return GuestHealth(
                up=int(life is not None and life.up),
                calls=dict(schedule.calls),
                in_flight=schedule.out,
                lost=schedule.lost,
                vms=schedule.standing(),
                cut=schedule.cut,
                restarts=dict(self._counted),
                periods_set=self._periods,
            )

    @property
    def pid(self) -> int:
        """The process's id; 0 while there is none."""
        life = self._life
        return 0 if life is None else life.process.pid

    def close(self, seconds: float = END_SECONDS) -> None:
        """End the process and the thread within about ``seconds`` each; the process is killed when it does not end by itself."""
        self._stop = True
        with suppress(BlockingIOError):
            os.write(self._wake, b"x")
        if self._thread.ident is not None:
            self._thread.join(seconds + END_SECONDS)
        if not self._thread.is_alive():
            self._selector.close()
            os.close(self._woken)
            os.close(self._wake)

    # -- the thread

    def _run(self) -> None:
        while not self._stop:
            now = time.monotonic()
            if self._life is None and now >= self._start_at:
                self._begin(now)
            for key, _ in self._selector.select(self._wait(now)):
                if self._life is not None and key.fd == self._life.out:
                    self._listen(self._life)
            if (now := time.monotonic()) >= self._tick_at:
                self._tick(now)
        if self._life is not None:
            self._let_go(self._life)

    def _tick(self, now: float) -> None:
        """What time alone calls for: not after each of the answers, because it looks at every VM."""
        self._tick_at = now + TICK_SECONDS
        if self._life is not None:
            self._watch(self._life, now)
        self._observe(Ticked(), now)
        self._report()
        with self._lock:
            settled = self.schedule.settled
        if settled:
            self.settled.set()

    def _watch(self, life: _Life, now: float) -> None:
        """Kill the process when it is silent or exceeds its memory limit, which a sandbox may have kept it from setting itself."""
        guest = self._settings.guest
        if now - life.heard > guest.hang_seconds:
            self._kill(life, HUNG, f"silent for {guest.hang_seconds:g} s")
        elif (resident := resident_bytes(life.process.pid)) > guest.memory_bytes:
            self._kill(life, MEMORY, f"{resident} bytes of memory, at most {guest.memory_bytes} are allowed")

    def _wait(self, now: float) -> float:
        return max(0.0, (self._tick_at if self._life is not None else min(self._tick_at, self._start_at)) - now)

    def _begin(self, now: float) -> None:
        process = subprocess.Popen(  # noqa: S603, our own interpreter and module
            command("virtflow.producer.agent"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(ARENAS),
            bufsize=0,
        )
        life = self._life = _Life(process, now, now)
        os.set_blocking(life.out, False)
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        self._selector.register(life.out, selectors.EVENT_READ)
        libvirt, guest = self._settings.libvirt, self._settings.guest
        self._write(
            life,
            Start(
                uri=libvirt.uri,
                keepalive_seconds=libvirt.keepalive_seconds,
                keepalive_count=libvirt.keepalive_count,
                connect_timeout_seconds=libvirt.connect_timeout_seconds,
                timeout_seconds=guest.timeout_seconds,
                memory_bytes=guest.memory_bytes,
                period_seconds=guest.balloon_period_seconds,
                pseudo_filesystems=guest.pseudo_filesystems,
                container_filesystems=guest.container_filesystems,
            ),
        )

    def _write(self, life: _Life, frame: Start | Ask) -> None:
        try:
            life.write(encoded(frame))
        except BlockingIOError:
            self._kill(life, HUNG, "it does not read what it is to do")
        except BrokenPipeError:  # it is gone, and the other pipe says why
            return

    def _listen(self, life: _Life) -> None:
        try:
            data = os.read(life.out, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._ended(life)
            return
        life.heard = time.monotonic()
        try:
            for frame in life.reader.frames(data):
                self._hear(life, frame)  # type: ignore[arg-type]  # a reader of the process's frames yields no other
        except BrokenFrameError as error:
            self._kill(life, BROKEN, str(error))

    def _hear(self, life: _Life, frame: FromProcess) -> None:
        match frame:
            case Up():
                life.up, self.problem = True, ""
                self._observe(frame, life.heard)
            case Answered() | Happened():
                if isinstance(frame, Answered) and frame.reason:
                    _LOGGER.debug("call %d took %.3f s: %s: %s", frame.number, frame.seconds, frame.reason, frame.text)
                self._observe(frame, life.heard)
            case Ended(why, text):
                life.why, life.text = why, text
            case Beat():
                pass

    def _observe(self, observation: Observation, now: float) -> None:
        self._owner.check()
        with self._lock:
            asked = self.schedule.observe(observation, now)
        for ask in asked:
            if self._life is not None:
                self._write(self._life, ask)

    def _kill(self, life: _Life, why: str, text: str) -> None:
        life.why, life.text = why, text
        self._ended(life)

    def _ended(self, life: _Life) -> None:
        """The process has ended or is about to: the next one repeats its calls."""
        self._forget(life)
        life.process.kill()  # it may have closed its pipe and hang; one that ends keeps its own exit code
        code = life.process.wait()
        why = life.why or (KILLED if code < 0 else "ended")
        with self._lock:
            self._counted[why] += 1
        now = time.monotonic()
        pause = self._restarts.pause(now - life.began)
        self._start_at = now + pause
        struck = life.up and (why in STRIKING or (not life.why and code not in {-signal.SIGKILL, -signal.SIGTERM}))
        self._observe(Down(struck), now)
        if not life.up:
            self.problem = printable(life.text) or why
            self.settled.set()
        _LOGGER.warning(
            "the guest-agent helper process has ended (%s): %s; it is restarted in %.1f s",
            why,
            printable(life.text) or f"exit code {code}",
            pause,
        )

    def _forget(self, life: _Life) -> None:
        self._selector.unregister(life.out)
        for pipe in (life.process.stdin, life.process.stdout):
            if pipe is not None:
                pipe.close()
        self._life = None

    def _let_go(self, life: _Life) -> None:
        """The producer ends: let the process end by itself, and kill it after a timeout."""
        self._forget(life)
        try:
            life.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            life.process.kill()
            life.process.wait()

    # -- what is told

    def _report(self) -> None:
        with self._lock:
            periods, self.schedule.periods[:] = list(self.schedule.periods), []
            vms = self.schedule.vms
            names = [(uuid, vms[uuid].name if uuid in vms else "") for uuid in periods]
            failing = {uuid for uuid, vm in vms.items() if vm.reason in PAUSING}
            new = [f"{vms[uuid].name}: {vms[uuid].reason}" for uuid in sorted(failing - self._failing)]
            self._periods += len(periods)
        self._failing = failing
        for uuid, name in names:
            _LOGGER.info(
                "VM %s (%s): the balloon's statistics period was not set and is now %d s",
                name,
                uuid,
                self._settings.guest.balloon_period_seconds,
            )
        if new:
            _LOGGER.warning("%d guest agents do not answer properly; new: %s", len(failing), ", ".join(new[:5]))
