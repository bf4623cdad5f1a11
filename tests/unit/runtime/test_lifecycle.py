"""Stopping, and what systemd is told."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from virtflow.runtime.lifecycle import Stop, notify, watchdog_seconds


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
