"""Custom resource definitions that others publish, as they are in their Go modules of one version, whose digest is held here."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.go_toolchain import go

DOWNLOAD_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Published:
    """A module, its version and digest, and the files of definitions in it."""

    module: str
    version: str
    digest: str
    files: tuple[str, ...]


PUBLISHED: Final = (
    Published(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.88.0",
        "h1:3T/dCQdk7CUVRqVfwRHoC5g66fC/ML6XQQLtQVL6Q5o=",
        tuple(f"example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml" for name in ("servicemonitors", "prometheusrules")),
    ),
    Published(
        "github.com/cert-manager/cert-manager",
        "v1.19.1",
        "h1:Txh8L/nLWTDcb7ZnXuXbTe15BxQnLbLirXmbNk0fGgY=",
        tuple(f"deploy/crds/cert-manager.io_{name}.yaml" for name in ("certificates", "issuers")),
    ),
)


def published() -> list[dict[str, Any]]:
    """All of them: ServiceMonitor, PrometheusRule, Certificate and Issuer."""
    return [yaml.safe_load((_folder(one) / file).read_text()) for one in PUBLISHED for file in one.files]


def _folder(one: Published) -> Path:
    """Where the module's files are; Go keeps them from then on."""
    env = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=mod -modcacherw"}
    command = [str(go()), "mod", "download", "-json", f"{one.module}@{one.version}"]
    with tempfile.TemporaryDirectory() as nowhere:
        done = subprocess.run(command, cwd=nowhere, env=env, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["Sum"] == one.digest, f"{one.module} {one.version} is not what it was"
    return Path(answer["Dir"])
