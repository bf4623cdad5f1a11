"""Runs ``virtflow`` as a user does: the installed program, in a process of its own, with only the settings the test gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("virtflow")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without any of virtflow's own variables, and ``extra``."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VIRTFLOW_")} | dict(extra or {})


def virtflow(*words: str, env: Mapping[str, str] | None = None, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """The ended command with its output; fails when it takes longer than ``seconds``."""
    return subprocess.run(
        [str(PROGRAM), *words], env=environment(env), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
    )


def one_line_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The single line a failed command has written to standard error; fails when it is not that."""
    assert done.returncode == code, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("virtflow: ")
    return lines[0]
