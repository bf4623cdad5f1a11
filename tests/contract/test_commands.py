"""The commands' promises: names, shared switches, help with examples, and command lines in the pages that the program takes."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.support.command_line import ALL, switches
from virtflow.cli.main import main
from virtflow.runtime.configuration import load, rows
from virtflow.schemas.errors import SettingError

ROOT = Path(__file__).resolve().parents[2]

SERVICES = ("producer", "processors", "exporter", "adapter", "simulate", "node")
SAME_EVERYWHERE = {
    "--config": (
        "producer",
        "processors",
        "exporter",
        "adapter",
        "simulate",
        "node",
        "snapshot",
        "check",
        "topics create",
        "topics list",
        "config show",
    ),
    "--connect": ("producer", "node", "snapshot", "check"),
    "--bootstrap-servers": ("producer", "processors", "exporter", "adapter", "simulate", "topics create", "topics list", "check"),
    "--listen": ("processors", "exporter", "adapter", "node"),
    "--interval": ("producer", "simulate", "node"),
    "--json": ("topics create", "topics list", "metrics list", "check", "config show", "version"),
    "--node": ("producer", "node"),
    "--log-level": SERVICES,
    "--log-format": SERVICES,
}
"""Switches that mean the same, and the commands that must have them by that very name."""
FILTERS = {("tap", "--node"), ("top", "--node")}
"""Names a node as everywhere, but to choose records, not to name this one."""


def test_the_commands_are_there() -> None:
    promised = ["snapshot", "node", *SERVICES[:5], "topics create", "topics list", "metrics list", "check", "config sample", "config show"]
    assert {*promised, "version", "completion"} <= set(ALL)


@pytest.mark.parametrize("switch", SAME_EVERYWHERE)
def test_a_switch_that_means_the_same_has_the_same_name(switch: str) -> None:
    assert {name for name, command in ALL.items() if switch in switches(command)} >= set(SAME_EVERYWHERE[switch])


def test_no_switch_has_two_meanings() -> None:
    """A name that a setting has is that setting's in every command, and any other name has one help text; ``--for`` takes one part, or several."""
    of_settings = {row.switch for row in rows()} - {""}
    helps: dict[str, set[str]] = {}
    for command in ALL.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                helps.setdefault(parameter.opts[0], set()).add(parameter.help or "")
    assert {name for name, texts in helps.items() if len(texts) > 1} <= {"--listen", "--node"} & of_settings | {"--for"}


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
    done = CliRunner().invoke(main, [*name.split(), "--help"], prog_name="virtflow")
    assert done.exit_code == 0
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
