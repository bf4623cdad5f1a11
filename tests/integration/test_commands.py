"""The installed program, as a process: exit codes, one-line errors, quiet ends, terminals, and no import of what is not used."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.command import PROGRAM, environment, one_line_error, virtflow
from tests.support.command_line import ALL, switches
from tests.support.fleet_samples import busy, lasting
from tests.support.processors import eventually
from tests.support.served_exporter import exporter_of, get, served
from virtflow.cli.first_steps import first_steps
from virtflow.cli.main import COMMANDS

NEEDED = {
    "history query": ("SELECT 1",),
    "history range": ("vm_state", "--vm", "x"),
    "history report": ("usage", "--month", "2026-03"),
    "history where": ("now", "--vm", "x"),
    "tap": ("metrics",),
    "forget-node": ("node-1",),
    "top": ("--once", "--kafka"),
}
"""What a command can't do without."""


@pytest.mark.parametrize("words", [(), ("--help",), ("topics", "create", "--help")], ids=" ".join)
def test_help_is_no_error(words: tuple[str, ...]) -> None:
    done = virtflow(*words)
    assert done.returncode == 0
    assert not done.stderr
    assert "virtflow" in done.stdout


def test_alone_it_shows_the_help() -> None:
    done = virtflow()
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert done.stdout.splitlines()[-2:] == first_steps()


@pytest.mark.parametrize(
    "words",
    [("bogus",), ("producer", "--bogus"), ("topics",), ("completion", "tcsh"), ("metrics", "list", "--group", "weather"), ("version", "x")],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2(words: tuple[str, ...]) -> None:
    done = virtflow(*words)
    assert done.returncode == 2
    assert "Usage: virtflow" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [(("exportr",), "exporter"), (("topics", "creat"), "create"), (("history", "reprot"), "report"), (("qqq",), "")],
    ids=["main", "topics", "history", "nothing alike"],
)
def test_an_unknown_command_is_told_its_nearest(words: tuple[str, ...], meant: str) -> None:
    done = virtflow(*words)
    assert done.returncode == 2
    hint = f" Did you mean '{meant}'?" if meant else ""
    assert done.stderr.splitlines()[-1] == f"Error: No such command '{words[-1]}'.{hint}"


@pytest.mark.parametrize("name", [name for name in ALL if "--config" in switches(ALL[name]) and name != "check"])
def test_bad_settings_are_one_line_and_exit_code_2(name: str, tmp_path: Path) -> None:
    """Whatever the command: file, key, value, reason and fix in one line."""
    file = tmp_path / "bad.toml"
    file.write_text("[kafka]\nbootstrap = 'x'\n")
    line = one_line_error(virtflow(*name.split(), *NEEDED.get(name, ()), "--config", str(file)), 2)
    assert f"file {file}: kafka.bootstrap = '[REDACTED]': there is no such setting" in line


@pytest.mark.parametrize("name", ["producer", "processors", "exporter", "simulate", "topics list", "topics create"])
def test_client_settings_that_librdkafka_refuses(name: str) -> None:
    """Known only once a client is made: still one line, exit code 2, and the setting's name."""
    done = virtflow(*name.split(), env={"VIRTFLOW_KAFKA_CLIENT": "linger=5", "VIRTFLOW_PROCESSORS_LISTEN": "127.0.0.1:0"})
    assert done.returncode == 2
    assert "kafka.client = {'linger': '[REDACTED]'}: No such configuration property: \"linger\"" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_defect_is_one_line_and_shows_its_place_on_demand(tmp_path: Path) -> None:
    """Only ``VIRTFLOW_DEBUG`` brings a traceback."""
    program = tmp_path / "defect.py"
    program.write_text(
        "import sys\nfrom virtflow.cli import main, version\n"
        "version.version.callback = lambda **_: 1 / 0\nsys.argv = ['virtflow', 'version']\nsys.exit(main.run())\n"
    )
    for extra, traceback in (({}, False), ({"VIRTFLOW_DEBUG": "1"}, True)):
        done = subprocess.run([sys.executable, str(program)], env=environment(extra), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is traceback
        assert "ZeroDivisionError: division by zero" in done.stderr


def test_a_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {PROGRAM} metrics list --json | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 141}
    assert not done.stderr


def test_ctrl_c_is_quiet(tmp_path: Path) -> None:
    """Even in the middle of a connection to a libvirt that never answers: no traceback, the exit code a shell expects, at once."""
    path = tmp_path / "libvirt-sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        server.settimeout(20)
        command = [str(PROGRAM), "snapshot", "--connect", f"qemu+unix:///system?socket={path}"]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = server.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err.strip()) == (130, "", "")


def on_a_terminal(*words: str, env: dict[str, str] | None = None) -> str:
    """What the command writes to a terminal of 80 columns."""
    shown, terminal = pty.openpty()
    given = environment({"TERM": "xterm", "COLUMNS": "80"} | (env or {}))
    with subprocess.Popen([str(PROGRAM), *words], env=given, stdout=terminal) as process:
        os.close(terminal)
        text = b""
        with suppress(OSError):  # how a terminal says that its other end is closed
            while chunk := os.read(shown, 65536):
                text += chunk
        assert process.wait(10) == 0
    os.close(shown)
    return text.decode()


@pytest.mark.parametrize(
    ("words", "told"), [(("config", "show"), "producer.interval_seconds"), (("metrics", "list"), "vm_cpu_seconds_total")]
)
def test_a_table_fits_the_terminal(words: tuple[str, ...], told: str) -> None:
    """No line is wider than it, nothing is blank, and its head is bold unless NO_COLOR is set."""
    text = on_a_terminal(*words)
    assert text.startswith("\x1b[1m")
    assert told in text
    plain = on_a_terminal(*words, env={"NO_COLOR": "1"})
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 80


CENTRE = ("rich", "aiohttp", "prometheus_client", "faust", "isal", "aiokafka")


def loaded_by(statement: str) -> set[str]:
    """Packages outside of the standard library that are loaded once ``statement`` has run."""
    code = f"import sys\n{statement}\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_producer_loads_nothing_of_the_centre() -> None:
    found = loaded_by("from virtflow.cli import main, services\nimport virtflow.producer.service")
    assert not found & set(CENTRE)
    assert "virtflow" in found


def test_the_program_itself_loads_no_part() -> None:
    found = loaded_by("from virtflow.cli import main")
    assert not found & {*CENTRE, "libvirt", "confluent_kafka", "fastavro", "msgspec"}


def test_version_for_programs() -> None:
    told = json.loads(virtflow("version", "--json").stdout)
    assert virtflow("version").stdout == virtflow("--version").stdout == f"virtflow {told['virtflow']}\n"
    assert told["parts"]["fastavro"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_program(shell: str) -> None:
    done = virtflow("completion", shell)
    assert done.returncode == 0
    assert "_VIRTFLOW_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("virtflow exp", "exporter"),
        ("virtflow topics create --rep", "--replication"),
        ("virtflow tap snap", "snapshots"),
        ("virtflow history range vm_cpu_sec", "vm_cpu_seconds_total"),
    ],
)
def test_bash_completes(words: str, expected: str) -> None:
    """Commands, switches, topics and metrics."""
    done = virtflow(env={"_VIRTFLOW_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)})
    assert f"plain,{expected}" in done.stdout
    assert done.returncode == 0


def test_a_real_bash_completes_a_vm() -> None:
    """From the exporter that VIRTFLOW_URL names; where none answers, nothing is offered and nothing is said."""
    script = (
        'eval "$(virtflow completion bash)"; COMP_WORDS=(virtflow tap events --vm vm); COMP_CWORD=4; '
        '_virtflow_completion virtflow vm --vm; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    def completed(url: str) -> tuple[list[str], str]:
        env = environment({"VIRTFLOW_URL": url, "PATH": f"{PROGRAM.parent}:/usr/bin:/bin"})
        done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60.0, check=True)
        return done.stdout.split(), done.stderr

    exporter = exporter_of()
    with served(exporter) as url:
        exporter.take(lasting([busy(1, 0), busy(2, 0)]))
        eventually("both VMs", lambda: b'"total":2' in get(f"{url}/api/v1/vms")[2])
        assert completed(url) == (["vm-00001", "vm-00002"], "")
    assert completed(url) == ([], "")
