"""The commands' promises: names, shared switches, help with examples, exit codes, one-line errors, and no import of what is not used."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

from tests.support.command import PROGRAM, environment, one_line_error, virtflow
from virtflow.cli.main import COMMANDS, main
from virtflow.runtime.configuration import load, rows
from virtflow.schemas.errors import SettingError

ROOT = Path(__file__).resolve().parents[2]

SERVICES = ("producer", "processors", "exporter", "simulate", "node")
SAME_EVERYWHERE = {
    "--config": (
        "producer",
        "processors",
        "exporter",
        "simulate",
        "node",
        "snapshot",
        "check",
        "topics create",
        "topics list",
        "config show",
    ),
    "--connect": ("producer", "node", "snapshot", "check"),
    "--bootstrap-servers": ("producer", "processors", "exporter", "simulate", "topics create", "topics list", "check"),
    "--listen": ("processors", "exporter", "node"),
    "--interval": ("producer", "simulate", "node"),
    "--json": ("topics create", "topics list", "metrics list", "check", "config show", "version"),
    "--node": ("producer", "node"),
    "--log-level": SERVICES,
    "--log-format": SERVICES,
}
"""Switches that mean the same, and the commands that must have them by that very name."""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command below ``virtflow`` by the words that call it."""
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())
        else:
            yield name, command


ALL = dict(commands())
NEEDED = {
    "history query": ("SELECT 1",),
    "history range": ("vm_state", "--vm", "x"),
    "history report": ("usage", "--month", "2026-03"),
    "history where": ("now", "--vm", "x"),
    "tap": ("metrics",),
}
"""What a command can't do without."""


FILTERS = {("tap", "--node")}
"""Names a node as everywhere, but to choose records, not to name this one."""


def switches(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def test_the_commands_are_there() -> None:
    promised = ["snapshot", "node", *SERVICES[:4], "topics create", "topics list", "metrics list", "check", "config sample", "config show"]
    assert {*promised, "version", "completion"} <= set(ALL)


@pytest.mark.parametrize("switch", SAME_EVERYWHERE)
def test_a_switch_that_means_the_same_has_the_same_name(switch: str) -> None:
    assert {name for name, command in ALL.items() if switch in switches(command)} >= set(SAME_EVERYWHERE[switch])


def test_no_switch_has_two_meanings() -> None:
    """A name that a setting has is that setting's in every command, and any other name has one help text."""
    of_settings = {row.switch for row in rows()} - {""}
    helps: dict[str, set[str]] = {}
    for command in ALL.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                helps.setdefault(parameter.opts[0], set()).add(parameter.help or "")
    assert {name for name, texts in helps.items() if len(texts) > 1} <= {"--listen", "--node"} & of_settings


@pytest.mark.parametrize("name", ALL)
def test_switches_of_settings_say_their_default_and_variable(name: str) -> None:
    """A switch that stands for a setting is made from its row: the help names default and environment variable."""
    by_switch = {row.switch: row for row in rows()} | {row.path: row for row in rows()}
    for parameter in ALL[name].params:
        row = by_switch.get(parameter.opts[0])
        if row is None or not isinstance(parameter, click.Option) or (name, parameter.opts[0]) in FILTERS:
            continue
        text = parameter.help or ""
        assert row.about in text or parameter.opts[0] == "--listen"
        assert "env: VIRTFLOW_" in text


@pytest.mark.parametrize("name", ALL)
def test_help_has_examples_that_are_good_commands(name: str) -> None:
    """Every help shows how the command is used, and each example parses."""
    done = virtflow(*name.split(), "--help")
    assert done.returncode == 0
    assert not done.stderr
    examples = re.findall(r"^ +(virtflow .+)$", done.stdout, flags=re.MULTILINE)
    assert examples, done.stdout
    for example in examples:
        parse(example)


def parse(line: str) -> None:
    """Parses a command line as the program would, without running it; fails where the program would refuse it.

    A command's bare name is good too, whatever the command needs: that is how a text speaks of it. ``a|b`` stands for either.
    """
    words = [word for word in shlex.split(re.split(r" [|>#]|#", line)[0]) if word != "&"]
    assert words.pop(0) == "virtflow"
    command: click.Command = main
    while isinstance(command, click.Group) and words:
        either = [command.get_command(click.Context(command), name) for name in words.pop(0).split("|")]
        assert all(either), line
        command = either[0] or command
    if words:
        given = command.make_context(command.name, words, resilient_parsing=False).params
        of_settings = {row.path.replace(".", "_"): row.path for row in rows()}
        load(Path(os.devnull), {}, {of_settings[name]: value for name, value in given.items() if name in of_settings})


def command_lines(text: str) -> list[str]:
    """Command lines of ours in a page, a unit file or a script: in backticks, at a line's begin in a block of code, after ExecStart=."""
    prose, lines = "", []
    for index, part in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        if index % 2:
            lines += re.findall(r"^ *(?:\S+/bin/)?(virtflow [^\n\\]+)", part, re.MULTILINE)
        else:
            prose += part
    return [*lines, *re.findall(r"`(virtflow [^`\n]+)`", prose), *re.findall(r"^ExecStart=\S+/(virtflow .+)$", prose, re.MULTILINE)]


PAGES = {
    str(path.relative_to(ROOT)): lines
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.service", "scripts/*")
    for path in sorted(ROOT.glob(pattern))
    if path.is_file() and (lines := command_lines(path.read_text()))
}


def test_command_lines_are_found_where_people_look() -> None:
    assert {"README.md", "docs/cli.md", "docs/deploy.md", "docs/history.md", "deploy/systemd/virtflow-producer.service"} <= set(PAGES)
    assert len(PAGES["docs/cli.md"]) > 2 * len(ALL)


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_in_the_pages_are_good(page: str) -> None:
    """Every command line that a page or a unit file shows is one the program takes."""
    for line in PAGES[page]:
        parse(line)


@pytest.mark.parametrize("line", ["bogus", "history bogus", "history write|bogus", "node --bogus", "topics create --partitions many"])
def test_a_bad_command_line_is_found(line: str) -> None:
    """In any of the places; the test above is not blind."""
    page = f"See `virtflow {line}`:\n```sh\n  virtflow {line}  # so\n```\nExecStart=/usr/bin/virtflow {line}\n"
    found = command_lines(page)
    assert len(found) == 3
    for each in found:
        with pytest.raises((AssertionError, click.UsageError, SettingError)):
            parse(each)


def test_alone_it_shows_the_help() -> None:
    done = virtflow()
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


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


@pytest.mark.parametrize("name", [name for name in ALL if "--config" in switches(ALL[name]) and name != "check"])
def test_bad_settings_are_one_line_and_exit_code_2(name: str, tmp_path: Path) -> None:
    """Whatever the command: file, key, value, reason and fix in one line."""
    file = tmp_path / "bad.toml"
    file.write_text("[kafka]\nbootstrap = 'x'\n")
    line = one_line_error(virtflow(*name.split(), *NEEDED.get(name, ()), "--config", str(file)), 2)
    assert f"file {file}: kafka.bootstrap = 'x': there is no such setting" in line


@pytest.mark.parametrize("name", ["producer", "processors", "exporter", "simulate", "topics list", "topics create"])
def test_client_settings_that_librdkafka_refuses(name: str) -> None:
    """Known only once a client is made: still one line, exit code 2, and the setting's name."""
    done = virtflow(*name.split(), env={"VIRTFLOW_KAFKA_CLIENT": "linger=5", "VIRTFLOW_PROCESSORS_LISTEN": "127.0.0.1:0"})
    assert done.returncode == 2
    assert "kafka.client = {'linger': '5'}: No such configuration property: \"linger\"" in done.stderr.splitlines()[-1]
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


def test_on_a_terminal_tables_have_lines() -> None:
    """Rich draws them where it is installed and the output is a terminal."""
    shown, terminal = pty.openpty()
    with subprocess.Popen(
        [str(PROGRAM), "config", "show"], env=environment({"TERM": "xterm", "COLUMNS": "100"}), stdout=terminal
    ) as process:
        os.close(terminal)
        text = b""
        with suppress(OSError):  # how a terminal says that its other end is closed
            while chunk := os.read(shown, 65536):
                text += chunk
        assert process.wait(10) == 0
    os.close(shown)
    assert "─────" in text.decode()
    assert "producer.interval_seconds" in text.decode()


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


def test_bash_completes_a_command_and_a_switch() -> None:
    for words, expected in (("virtflow exp", "exporter"), ("virtflow topics create --rep", "--replication")):
        done = virtflow(env={"_VIRTFLOW_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)})
        assert f"plain,{expected}" in done.stdout
