"""kubernetes-validate: manifests against the JSON schemas of a Kubernetes release, unknown fields included."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import yaml

from scripts.embedded_kafka import data_folder, one_at_a_time
from tests.support.kubernetes.manifests import ELSEWHERE, Object

PACKAGE: Final = "kubernetes-validate==1.37.0"
INSTALL_SECONDS: Final = 600
RELEASES: Final = ("1.31", "1.37")
"""The oldest that the chart takes, and the newest that the package knows."""


def _installed() -> Path:
    folder = data_folder() / "kubernetes-validate"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / PACKAGE.rpartition("=")[2]
    with one_at_a_time(folder / "install.lock"):
        if not target.exists():
            part = target.with_suffix(".part")
            pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(part), PACKAGE]
            subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, timeout=INSTALL_SECONDS)
            part.rename(target)
    return target


def complaints(found: Iterable[Object], release: str, folder: Path) -> str:
    """What it has against these objects, "" where that is nothing. Kinds of others are left out."""
    file = folder / f"manifests-{release}.yaml"
    file.write_text(yaml.safe_dump_all([one for one in found if one["kind"] not in ELSEWHERE]))
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "--kubernetes-version", release, str(file)]
    env = {**os.environ, "PYTHONPATH": str(_installed())}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
