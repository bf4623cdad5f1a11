"""The command ``virtflow``: finds the sub-command, runs it, and reports an error as one line and an exit code.

Sub-commands are imported when they are called, so that a producer does not load what only other parts need.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from typing import Final

import click

from virtflow.cli.click_parts import LazyGroup
from virtflow.cli.output.say import say, say_text
from virtflow.runtime import log
from virtflow.runtime.version import version
from virtflow.schemas.errors import InputError, SettingError, StopForGoodError
from virtflow.schemas.text import safe_lines

FINE, FOUND, WRONG_USE, FOR_GOOD = 0, 1, 2, 3
INTERRUPTED: Final = 130
"""What a shell expects of a program that Ctrl-C ended."""
PIPE_CLOSED: Final = 141
"""What a shell expects of a program whose reader went away."""
DEBUG_VARIABLE: Final = "VIRTFLOW_DEBUG"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CODES: Final[Mapping[type[InputError], int]] = {SettingError: WRONG_USE, StopForGoodError: FOR_GOOD}
"""Exit codes of errors that a person has to fix before another try makes sense; of all others it is FOUND."""

COMMANDS: Final[Mapping[str, str]] = {
    "snapshot": "virtflow.cli.host.snapshot:snapshot",
    "node": "virtflow.cli.host.node:node",
    "producer": "virtflow.cli.services:producer",
    "processors": "virtflow.cli.services:processors",
    "exporter": "virtflow.cli.services:exporter",
    "adapter": "virtflow.cli.services:adapter",
    "simulate": "virtflow.cli.services:simulate",
    "history": "virtflow.cli.history:history",
    "topics": "virtflow.cli.bus.topics:topics",
    "forget-node": "virtflow.cli.bus.forget_node:forget_node",
    "migrations": "virtflow.cli.bus.migrations:migrations",
    "top": "virtflow.cli.top.command:top",
    "tap": "virtflow.cli.bus.tap:tap",
    "metrics": "virtflow.cli.metrics:metrics",
    "check": "virtflow.cli.checks.check:check",
    "doctor": "virtflow.cli.checks.doctor:doctor",
    "config": "virtflow.cli.config:config",
    "version": "virtflow.cli.version:version",
    "completion": "virtflow.cli.completion:completion",
}
"""Where each command is, in the order of the help."""


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001, click's own signature
    if wanted:
        say(f"virtflow {version()}")
        context.exit()


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Settings come from --config FILE, the environment (VIRTFLOW_SECTION_KEY) and switches; the later ones win.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version and exit.")
@click.pass_context
def main(context: click.Context) -> None:
    """Metrics of every virtual machine of a KVM/libvirt fleet, from libvirt through Kafka to Prometheus.

    \b
    virtflow snapshot            what the VMs of this host do, now
    virtflow node                /metrics and a page of this host alone, without Kafka
    virtflow top                 the fleet in the terminal
    virtflow check               what is missing before a service can run
    """  # noqa: D301, click's own mark for lines that are kept
    if context.invoked_subcommand is None:
        from virtflow.cli.first_steps import first_steps

        say_text(context.get_help())
        say("", *first_steps())


def run() -> int:
    """The console entry: runs the command line and returns its exit code.

    Exit codes: 0 success, 1 failure or findings, 2 wrong usage, 3 a service that must not be restarted without an operator's decision.
    """
    _let_output_never_fail()
    log.speak_safely()
    try:
        code = main.main(prog_name="virtflow", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001, the one place: nobody but us is to see a traceback
        return _told(error)
    return code if isinstance(code, int) else FINE


def _let_output_never_fail() -> None:
    """Names may contain any character. A character that the locale's encoding can't represent is written as an escape, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _told(error: BaseException) -> int:
    """Reports in one line why the command ended, and returns the exit code."""
    match error:
        case click.exceptions.Exit():
            code = error.exit_code
        case click.ClickException():
            error.message = safe_lines(error.message)
            error.show()
            code = error.exit_code
        case click.exceptions.Abort() | KeyboardInterrupt():
            code = INTERRUPTED
        case SystemExit(code=0):  # click's own end of a completion
            code = FINE
        case BrokenPipeError() | SystemExit():
            # click makes the former the latter where it writes. The interpreter flushes standard output once more at its end, which would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = PIPE_CLOSED
        case UnicodeEncodeError() if any(map(_SURROGATE.search, sys.argv)):
            say("virtflow: an argument holds bytes that are no text; write it in UTF-8", err=True)
            code = WRONG_USE
        case InputError():
            say(f"virtflow: {error}", err=True)
            code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), FOUND)
        case _:
            if os.environ.get(DEBUG_VARIABLE):
                raise error
            say(f"virtflow: this is a defect of virtflow: {_named(error)}; {DEBUG_VARIABLE}=1 shows where", err=True)
            code = FOUND
    return code


def _named(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    sys.exit(run())
