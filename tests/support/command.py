"""Runs ``virtflow`` with only the settings the test gives: as a user does, or within the test's process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from tests.support.loggers import loggers_kept
from virtflow.cli.main import run

PROGRAM = Path(sys.executable).with_name("virtflow")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without any of virtflow's own variables, and ``extra``."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VIRTFLOW_")} | dict(extra or {})


def of_a_terminal(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """``environment`` for a program in a terminal, whose size is the window's: test workers have a size in theirs, which would count."""
    return {name: value for name, value in environment(extra).items() if name not in {"COLUMNS", "LINES"}}


def virtflow(*words: str, env: Mapping[str, str] | None = None, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """The ended command with its output; fails when it takes longer than ``seconds``."""
    return subprocess.run(
        [str(PROGRAM), *words], env=environment(env), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
    )


def in_process(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The same as ``virtflow``, without the time that a Python process takes to start and to import: up to a second of a CPU.

    For commands that end by themselves, write to no terminal and leave no thread. The layer integration runs the installed program.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    argv = [str(PROGRAM), *words]
    with (
        mock.patch.dict(os.environ, environment(env), clear=True),
        mock.patch.multiple(sys, argv=argv, stdout=out, stderr=err, stdin=io.StringIO()),
        loggers_kept(),
    ):
        code = run()
    return subprocess.CompletedProcess(argv, code, _text(out), _text(err))


def _text(written: io.TextIOWrapper) -> str:
    """What was written, with the ends of lines as ``subprocess`` reads them."""
    written.flush()
    written.seek(0)
    return written.read()


def one_line_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The single line a failed command has written to standard error; fails when it is not that."""
    assert done.returncode == code, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("virtflow: ")
    return lines[0]
