"""Stopping, and what systemd is told."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from virtflow.runtime.lifecycle import YOUNG_SECONDS, Cycles, Stop, notify, watchdog_seconds


def test_stop_calls_each_subscriber_once() -> None:
    """Also one that comes after the stop."""
    stop, calls = Stop(), list[str]()
    stop.subscribe(lambda: calls.append("early"))
    stop.set()
    stop.set()
    stop.subscribe(lambda: calls.append("late"))
    assert stop.is_set()
    assert stop.wait(0)
    assert calls == ["early", "late"]


def test_notify_reaches_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The datagram is what sd_notify(3) sends."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        assert notify("READY=1")
        assert listener.recv(64) == b"READY=1"
    path.unlink()
    assert not notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


def test_sigusr1_writes_every_stack_and_the_process_goes_on() -> None:
    """The way to see where a service hangs, without a debugger and without ending it."""
    code = (
        "import os, signal; from virtflow.runtime.lifecycle import dump_stacks_on_signal\n"
        "def waits_for_storage(): dump_stacks_on_signal(); os.kill(os.getpid(), signal.SIGUSR1); print('goes on')\n"
        "waits_for_storage()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": ":".join(sys.path)})
    assert (done.returncode, done.stdout) == (0, "goes on\n")
    assert "in waits_for_storage" in done.stderr


def test_watchdog_is_half_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_seconds() == 15.0
    monkeypatch.delenv("WATCHDOG_USEC")
    assert watchdog_seconds() is None


def printed(code: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_service_that_allocates_little_still_frees_its_cycles() -> None:
    """Closed connections leave them: by numbers alone, those of hours would wait."""
    code = (
        "import threading, weakref; from virtflow.runtime import lifecycle\n"
        "lifecycle.YOUNG_SECONDS = 0.01\n"
        "lifecycle.collect_seldom()\n"
        "class Closed: pass\n"
        "one, freed = Closed(), threading.Event()\n"
        "one.itself = one; weakref.finalize(one, freed.set)\n"
        "del one; print(freed.wait(10.0))"
    )
    assert printed(code) == "True\n"


def test_a_service_gives_back_what_a_burst_has_left_free() -> None:
    """Below something that is in use the allocator keeps it, and a process never becomes smaller."""
    code = (
        "import time; from pathlib import Path; from virtflow.runtime import lifecycle\n"
        "def resident(): return next(int(line.split()[1]) for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('RssAnon'))\n"
        "before, burst = resident(), [bytes(2_000) for _ in range(32_000)]\n"
        "burst = burst[::100]\n"
        "kept = resident() - before\n"
        "lifecycle.YOUNG_SECONDS = 0.01\n"
        "lifecycle.collect_seldom()\n"
        "deadline = time.monotonic() + 10.0\n"
        "while resident() - before > kept / 2 and time.monotonic() < deadline: time.sleep(0.01)\n"
        "print(kept > 50_000, (resident() - before) / kept < 0.5)"
    )
    assert printed(code) == "True True\n"


class Collector:
    """A garbage collector that takes its time."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` for a look among all objects."""
        self.now = 0.0
        self.looks: list[tuple[float, int]] = []
        self._seconds = seconds
        self._cycles = Cycles(lambda: self.now, self)

    def __call__(self, generation: int) -> None:
        self.looks.append((self.now, generation))
        self.now += self._seconds if generation > 1 else 0.0

    def minutes(self, count: int) -> list[float]:
        """When it looked among all objects within so many minutes."""
        for _ in range(count):
            self.now += YOUNG_SECONDS
            self._cycles.look()
        return [at for at, generation in self.looks if generation > 1]


def test_cycles_are_looked_for_among_young_objects_each_minute_and_among_all_seldom() -> None:
    collector = Collector(0.001)
    assert collector.minutes(30) == pytest.approx([600.0, 1200.0, 1800.0], abs=0.1)
    assert [generation for _, generation in collector.looks].count(1) == 27


def test_a_look_among_very_many_objects_takes_no_larger_part_of_the_time() -> None:
    """Half a second, in which nothing else runs, at most every 5,000."""
    collector = Collector(0.5)
    assert collector.minutes(120) == pytest.approx([600.0, 5640.5], abs=0.1)
