"""Processes in namespaces of their own: they die with the test run, whatever ends it, and leave nothing behind.

A node's first process is tied to the test run by PDEATHSIG and owns a PID namespace, so the kernel kills everything in it (QEMU,
stopped or not, libvirtd, producers) when the run ends, even by SIGKILL. Nothing has to be searched for by name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from scripts.debian_root import PRIVATE

SETUP_SECONDS = 20.0
COMMAND_SECONDS = 60.0


class LabError(Exception):
    """The lab can't do what a test asked of it; the text names the command and what it said."""


def await_true(condition: Callable[[], bool], timeout_seconds: float, what: str, *, pause_seconds: float = 0.05) -> None:
    """Return as soon as ``condition`` holds; LabError naming ``what`` when it does not within ``timeout_seconds``. Asks every ``pause_seconds``."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout_seconds:g} s: {what}")
        time.sleep(pause_seconds)


def run(command: Sequence[str], timeout_seconds: float = COMMAND_SECONDS) -> str:
    """Standard output of a command that must succeed; LabError with its standard error otherwise."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)}: no answer within {timeout_seconds:g} s") from error
    if done.returncode:
        raise LabError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def only_child(pid: int) -> int:
    """Process id of the one child of ``pid``, 0 while there is none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(children[0]) if children else 0


def children_of(pid: int) -> list[int]:
    """Process ids of all children of ``pid``, whichever of its threads began them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


class Process:
    """A program that a test started; where it runs in a node's namespaces, signals reach it and not the nsenter around it."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, *, nsenter: bool = False) -> None:
        """Start it, both its outputs appended to ``log``; with ``nsenter`` returns once the program within exists.

        It is killed when the thread that starts it ends: to be called in the test's own.
        """
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else {**os.environ, **environment},
            )
        self.pid = self._popen.pid
        """As seen from outside the namespaces."""
        if nsenter:
            await_true(lambda: self.ended or only_child(self._popen.pid) != 0, SETUP_SECONDS, f"{command!r} starts")
            self.pid = only_child(self._popen.pid)

    @property
    def outer_pid(self) -> int:
        """Of the process that was started here: the nsenter where there is one, else the program."""
        return self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether the program is gone."""
        return self._popen.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program; nothing happens when it is gone already."""
        if self.ended:
            return
        try:
            os.kill(self.pid, number)
            if number == signal.SIGCONT:  # nsenter stops itself with its child
                os.kill(self._popen.pid, number)
        except ProcessLookupError:
            return

    def wait(self, timeout_seconds: float) -> int:
        """Exit status (negative: the signal that ended it); LabError when it still runs after ``timeout_seconds``."""
        try:
            return self._popen.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self._popen.args!r} still runs after {timeout_seconds:g} s") from error

    def stop(self, timeout_seconds: float = 15.0) -> int:
        """SIGCONT and SIGTERM; the exit status."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        return self.wait(timeout_seconds)

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.signal(signal.SIGKILL)
        if self._popen.poll() is None:
            os.kill(self._popen.pid, signal.SIGCONT)
        self.wait(SETUP_SECONDS)


class Namespaces:
    """Network, mount, UTS and PID namespaces, alive as long as the first process in them."""

    def __init__(self, first: Sequence[str], log: Path) -> None:
        """Start ``first`` as process 1; it prints ``ready`` when the namespaces may be used, and its errors go to ``log``.

        Nothing that it mounts reaches the machine.
        """
        unshare = ["unshare", "-n", "-m", "-u", "-p", "--fork", "--kill-child", "--propagation", "unchanged"]
        with log.open("ab") as errors:
            self._outer = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *unshare, "sh", "-c", f'{PRIVATE}; exec "$@"', "sh", *first],
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                stderr=errors,
            )
        assert self._outer.stdout is not None
        with self._outer.stdout as stdout:
            said = stdout.readline()
        if said != b"ready\n":
            self._outer.kill()
            self._outer.wait(SETUP_SECONDS)
            raise LabError(f"{' '.join(first)}: namespaces can't be made (root is needed): {log.read_text()}")
        self.first_pid = only_child(self._outer.pid)
        self._spawned: list[Process] = []

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs ``command`` in the namespaces."""
        return ["nsenter", "-t", str(self.first_pid), "-m", "-n", "-u", "-p", "-r", "-w", "--", *command]

    def run(self, *command: str, timeout_seconds: float = COMMAND_SECONDS) -> str:
        """Run a command to its end in the namespaces; its standard output. LabError when it fails."""
        return run(self.command(command), timeout_seconds)

    def spawn(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program in the namespaces, both its outputs appended to ``log``; it ends with the lab at the latest."""
        process = Process(self.command(command), log, environment, nsenter=True)
        self._spawned.append(process)
        return process

    def outer_pids(self, inner_pids: Collection[int]) -> dict[int, int]:
        """Process ids outside of the namespaces by those inside; those that are not there are missing."""
        own, found = _pid_namespace(self.first_pid), {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if _pid_namespace(int(entry.name)) != own:
                    continue
                status = (entry / "status").read_text()
            except OSError:  # gone meanwhile, or the machine's own and not to be looked at
                continue
            ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
            if int(ids[-1]) in inner_pids:
                found[int(ids[-1])] = int(entry.name)
        return found

    def signal(self, outer_pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of these namespaces, and to no other whatever its number has become."""
        if _pid_namespace(outer_pid) != _pid_namespace(self.first_pid):
            raise LabError(f"process {outer_pid} is not of this node")
        os.kill(outer_pid, number)

    def close(self) -> None:
        """Kill every process in the namespaces, and reap what this run started."""
        if self._outer.poll() is None:
            os.kill(self.first_pid, signal.SIGKILL)
        self._outer.wait(SETUP_SECONDS)
        for process in self._spawned:
            process.kill()


def _pid_namespace(pid: int) -> Path:
    """The kernel's name of the PID namespace that a process is in."""
    return Path(f"/proc/{pid}/ns/pid").readlink()
