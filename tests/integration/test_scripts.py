"""The scripts as processes: wrong use and a taken port are said in a sentence with the fix, and nothing outside their folder is touched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from scripts.embedded_kafka import fetch as fetch_kafka
from scripts.supervise import Part, PartError, Supervisor, await_true
from scripts.up_pipeline import Ports, free_ports

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
STUBBORN = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def run(command: list[str], variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command run in the checkout, to its end."""
    environment = {**os.environ, **(variables or {})}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on a loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["scripts/test", "unti"], "there is no layer 'unti'"),
        (["scripts/prepare", "everything"], "scripts/prepare run"),
        (["scripts/kafka", "walk"], "invalid choice: 'walk'"),
        (["scripts/kafka", "run"], "--dir"),
        ([PYTHON, "-m", "scripts.up_pipeline", "--speed", "3"], "--speed"),
    ],
)
def test_wrong_use_is_told(command: list[str], says: str) -> None:
    """Exit code 2 and what would be right."""
    done = run(command)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize(
    "command", [["scripts/up", "--help"], ["scripts/test", "--help"], ["scripts/kafka", "--help"]], ids=lambda words: words[0]
)
def test_help_installs_nothing(command: list[str], tmp_path: Path) -> None:
    """Asking costs nothing."""
    done = run(command, {"VIRTFLOW_DATA": str(tmp_path / "data")})
    assert done.returncode == 0
    assert command[0] in done.stdout
    assert not (tmp_path / "data").exists()


def test_up_has_a_switch_for_every_port() -> None:
    """Every port can be moved."""
    text = run(["scripts/up", "--help"]).stdout
    for name in Ports.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}-port" in text


def test_a_taken_port_is_told_with_its_switch(listener: socket.socket, tmp_path: Path) -> None:
    """Before anything is started, and by the name of what wanted it."""
    port = listener.getsockname()[1]
    command = [PYTHON, "-m", "scripts.up_pipeline", "--free-ports", "--prometheus-port", str(port)]
    done = run(command, {"VIRTFLOW_DATA": str(tmp_path)})
    assert done.returncode == 1
    assert f"127.0.0.1:{port} for prometheus cannot be used (Address already in use)" in done.stderr
    assert "--prometheus-port" in done.stderr
    assert not (tmp_path / "logs").exists()


def test_the_embedded_broker_tells_of_a_taken_port(listener: socket.socket, tmp_path: Path) -> None:
    """One line instead of Java's thirty."""
    fetch_kafka()  # says so the first time
    port = listener.getsockname()[1]
    done = run(["scripts/kafka", "run", "--dir", str(tmp_path), "--port", str(port), "--controller-port", str(free_ports().kafka)])
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be used" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_reset_removes_only_what_scripts_made(tmp_path: Path) -> None:
    """A folder of somebody else's stays; ours goes."""
    theirs = tmp_path / "home"
    theirs.mkdir()
    (theirs / "letter").write_text("dear")
    refused = run(["scripts/reset"], {"VIRTFLOW_DATA": str(theirs)})
    assert refused.returncode == 1
    assert "does not look like ours" in refused.stderr
    assert (theirs / "letter").exists()
    ours = tmp_path / "data"
    (ours / "kafka").mkdir(parents=True)
    assert run(["scripts/up", "--reset"], {"VIRTFLOW_DATA": str(ours)}).returncode == 0
    assert not ours.exists()
    assert run(["scripts/reset"], {"VIRTFLOW_DATA": str(ours)}).returncode == 0


def test_a_part_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    """The log's end is in the error, and the others are ended."""
    with Supervisor(tmp_path) as supervisor:
        steady = Part("steady", [PYTHON, "-c", "import time; time.sleep(600)"])
        supervisor.start(steady)
        supervisor.start(Part("weak", [PYTHON, "-c", "print('out of reach'); raise SystemExit(3)"]))
        with pytest.raises(PartError, match=r"weak ended by itself with 3\n.*out of reach"):
            supervisor.wait_ready(steady, 30.0, lambda: False)


def test_parts_end_with_the_supervisor_even_by_kill(tmp_path: Path) -> None:
    """Even kill -9 of the supervisor leaves nothing running."""
    code = f"""
import time
from pathlib import Path
from scripts.supervise import Part, Supervisor
with Supervisor(Path({str(tmp_path)!r})) as supervisor:
    supervisor.start(Part("stubborn", [{PYTHON!r}, "-c", {STUBBORN!r}]))
    print(supervisor._running[0][1].pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([PYTHON, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        log = tmp_path / "stubborn.log"
        assert await_true(lambda: log.exists() and log.read_text() == "up\n", 30.0)
        process.send_signal(signal.SIGKILL)
    assert await_true(lambda: not Path(f"/proc/{pid}").exists(), 10.0)


def test_followed_lines_carry_their_parts_name(tmp_path: Path) -> None:
    """Whole lines only, each with the name of the part that wrote it."""
    code = "import sys, time; sys.stdout.write('one\\ntw'); sys.stdout.flush(); time.sleep(0.5); print('o', flush=True); time.sleep(600)"
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(Part("part", [PYTHON, "-c", code]))
        lines = supervisor.follow()
        assert [next(lines), next(lines)] == ["part | one", "part | two"]


def test_only_one_pipeline_on_a_folder(tmp_path: Path) -> None:
    """The second is told who has it."""
    holder = f"""
import time
from pathlib import Path
from scripts.up_pipeline import only_one
with only_one(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([PYTHON, "-c", holder], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        done = run([PYTHON, "-m", "scripts.up_pipeline", "--free-ports"], {"VIRTFLOW_DATA": str(tmp_path)})
        process.kill()
    assert done.returncode == 1
    assert f"(pid {process.pid})" in done.stderr
    assert str(tmp_path) in done.stderr
