"""Helm's own program, built from its Go module where it has not been built before."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from scripts.embedded_kafka import data_folder, one_at_a_time
from scripts.go_toolchain import go

VERSION: Final = "v4.3.1"
MODULE: Final = Path(__file__).parent / "program_module"
"""A module that requires Helm and pins all of its dependencies by their digests."""
PACKAGE: Final = "helm.sh/helm/v4/cmd/helm"
BUILD_SECONDS: Final = 3_600


def helm() -> Path:
    """The program: five minutes of one CPU, once. Raises ``CalledProcessError`` where it can't be built."""
    folder = data_folder() / "helm" / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "helm"
    with one_at_a_time(folder / "build.lock"):
        if not program.exists():
            _build(program)
    return program


def _build(program: Path) -> None:
    env = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false", "CGO_ENABLED": "0"}
    part = program.with_suffix(".part")
    flags = f"-s -w -X helm.sh/helm/v4/internal/version.version={VERSION}"
    with tempfile.TemporaryDirectory() as folder:
        for file in ("go.mod", "go.sum"):
            shutil.copy(MODULE / file, folder)
        command = ["nice", "-n", "15", str(go()), "build", "-trimpath", "-ldflags", flags, "-o", str(part), PACKAGE]
        subprocess.run(command, cwd=folder, env=env, check=True, stdin=subprocess.DEVNULL, timeout=BUILD_SECONDS)
    part.rename(program)


def run(*words: str, home: Path, kubeconfig: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """What Helm says, with nothing of the user's own settings; ``home`` is a folder for its caches."""
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig or home / "none"), "GOMAXPROCS": "2"}
    return subprocess.run([str(helm()), *words], input=stdin, env=env, capture_output=True, text=True, timeout=300, check=False)
