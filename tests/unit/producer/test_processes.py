"""The process table: found by UUID, never confused by a recycled number, and nothing said where nothing can be seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processors import eventually
from virtflow.producer.hypervisor.qemu_processes import SCANS_MAX, Processes

UUID = "96d39f50-15c8-409f-9a7f-d2f9b5cba981"


@dataclass(frozen=True)
class Entry:
    """An entry as proc(5) describes it; the name holds what a careless parser stumbles over."""

    uuid: str = UUID
    state: str = "S"
    start: int = 100
    program: str = "/usr/bin/qemu-system-x86_64"

    def write(self, root: Path, **files: bytes) -> None:
        """Make it process 41, with ``files`` in place of its own."""
        folder = root / "41"
        folder.mkdir(exist_ok=True)
        words = [self.program.encode(), b"-name", b"guest=a,debug-threads=on", b"-uuid", self.uuid.encode(), b""]
        after = [self.state, *["1"] * 18, str(self.start), "0", "0"]
        own = {"cmdline": b"\0".join(words), "stat": f"41 (CPU 0) S (kvm)) {' '.join(after)}\n".encode()}
        for name, content in (own | files).items():
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("state", list("RSTtZXI"))
def test_the_state_of_the_main_thread(tmp_path: Path, state: str) -> None:
    Entry(state=state).write(tmp_path)
    processes = Processes(tmp_path)
    assert processes.states([UUID]) == {UUID: state}
    assert processes.pid(UUID) == 41


def test_a_change_is_seen_without_another_scan(tmp_path: Path) -> None:
    Entry().write(tmp_path)
    processes = Processes(tmp_path)
    processes.states([UUID])
    Entry(state="T").write(tmp_path)
    assert processes.states([UUID]) == {UUID: "T"}


def test_waiting_for_storage_is_told_when_the_second_look_finds_it_too(tmp_path: Path) -> None:
    Entry(state="D").write(tmp_path)
    assert Processes(tmp_path).states([UUID]) == {UUID: "D"}


def test_a_recycled_number_is_another_process(tmp_path: Path) -> None:
    Entry().write(tmp_path)
    processes = Processes(tmp_path)
    processes.states([UUID])
    Entry(state="T", start=200, program="/bin/sleep").write(tmp_path)
    assert processes.states([UUID]) == {}
    assert processes.pid(UUID) is None


@pytest.mark.parametrize(
    "make",
    [
        Path.touch,
        Entry(uuid="00000000-0000-4000-8000-000000000000").write,
        Entry(program="/bin/sleep").write,
        lambda root: (root / "41").mkdir(),
        lambda root: Entry().write(root, stat=b""),
        lambda root: Entry().write(root, cmdline=b""),
        lambda root: Entry().write(root, cmdline=b"qemu\0-uuid"),
        lambda root: (root / "41").touch(),
        Path.rmdir,
    ],
    ids=["empty", "other VM", "no QEMU", "vanished", "no state", "kernel thread", "no uuid", "a file", "no table"],
)
def test_nothing_is_said_where_nothing_can_be_seen(tmp_path: Path, make: Callable[[Path], None]) -> None:
    root = tmp_path / "proc"
    root.mkdir()
    make(root)
    assert Processes(root).states([UUID]) == {}


def test_a_command_line_that_hangs_hides_no_other_process(tmp_path: Path) -> None:
    """As the kernel lets a read hang with a process that hangs in a change of its memory: what is known goes on, and others are found."""
    hanging = [tmp_path / str(pid) / "cmdline" for pid in (1, 40, 42, 99)]
    for fifo in hanging:
        fifo.parent.mkdir()
        os.mkfifo(fifo)
    processes = Processes(tmp_path)
    began = len(threading.enumerate())
    assert processes.states([UUID]) == {}
    Entry().write(tmp_path)
    for _ in hanging:
        processes._next_scan = 0.0
        processes.states([UUID])
    assert processes.states([UUID]) == {UUID: "S"}
    for _ in range(2 * SCANS_MAX):
        processes._next_scan = 0.0
        assert processes.states([UUID, "another"]) == {UUID: "S"}
    assert len(threading.enumerate()) - began <= len(hanging)

    def returned() -> bool:
        """Whether all reads have returned; each scan goes on to the next one that hangs."""
        for fifo in hanging:
            os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
        return len(threading.enumerate()) == began

    eventually("the reads return", returned)


def test_who_looks_while_another_one_scans_waits_for_what_that_finds(tmp_path: Path) -> None:
    """As a doctor does that looks at many daemons at one moment, each with its own VM."""
    Entry(state="T").write(tmp_path)
    line = tmp_path / "41" / "cmdline"
    words = line.read_bytes()
    line.unlink()
    os.mkfifo(line)
    processes = Processes(tmp_path, scan_seconds=60.0)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(processes.states, ["another"])
        eventually("a scan is under way", lambda: any(thread.name == "process-table" for thread in threading.enumerate()))
        second = threads.submit(processes.states, [UUID])
        with line.open("wb") as pipe:  # opens once the scan reads it
            pipe.write(words)
        assert (first.result(), second.result()) == ({}, {UUID: "T"})


def test_a_scan_that_hangs_is_waited_for_once(tmp_path: Path) -> None:
    """For as long as its own time lasts, whoever looks meanwhile."""
    (tmp_path / "40").mkdir()
    os.mkfifo(tmp_path / "40" / "cmdline")
    processes = Processes(tmp_path, scan_seconds=0.05)
    assert processes.states([UUID]) == {}
    joined: list[float | None] = []
    (scan,) = processes._scans
    scan.join = joined.append  # type: ignore[assignment, method-assign]
    assert processes.states([UUID]) == {}
    assert not joined
    os.close(os.open(tmp_path / "40" / "cmdline", os.O_RDWR | os.O_NONBLOCK))


def test_a_real_process_that_is_stopped() -> None:
    """The real table: a process that looks like a VM's, stopped and continued."""
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, "-uuid", UUID]
    with subprocess.Popen(["qemu-like", *command[1:]], executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        processes = Processes()
        assert processes.states([UUID])[UUID] in "RS"
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert processes.states([UUID]) == {UUID: "T"}
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.close()
