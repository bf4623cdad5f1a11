"""Telegraf as a rival: built slim from the Go module proxy, with no more plugins than a way through it needs."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from scripts.embedded_kafka import data_folder
from scripts.go_toolchain import go

MODULE: Final = "github.com/influxdata/telegraf"
VERSION: Final = "v1.37.2"
FOLDER: Final = data_folder() / "rivals"
BUILD_SECONDS: Final = 3_600.0

CENTRE: Final = ("inputs.kafka_consumer", "parsers.influx", "outputs.prometheus_client")
"""From Kafka to Prometheus: what the processors and the exporter do here."""


class NotBuiltError(Exception):
    """A rival could not be built: the reason in its builder's own words."""


def telegraf(plugins: Iterable[str]) -> Path:
    """The program with these plugins (``inputs.libvirt``, ...), built at the first call; raises ``NotBuiltError``.

    It is Telegraf's own way to a small binary: the build tags of its custom builder.
    """
    tags = ",".join(["custom", *sorted(plugins)])
    folder = FOLDER / f"telegraf-{VERSION}-{hashlib.sha256(tags.encode()).hexdigest()[:12]}"
    program = folder / "telegraf"
    if not program.exists():
        _build(folder, tags)
    return program


def _build(folder: Path, tags: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tools.go").write_text(f'//go:build tools\n\npackage tools\n\nimport _ "{MODULE}/cmd/telegraf"\n')
    (folder / "go.mod").write_text(f"module rival\n\ngo 1.25.5\n\nrequire {MODULE} {VERSION}\n")
    target = folder / "telegraf.new"
    # Stripped, as the packages of Telegraf are.
    _run(
        [
            str(_compiler()),
            "build",
            "-mod=mod",
            "-trimpath",
            "-tags",
            tags,
            "-ldflags",
            "-s -w",
            "-o",
            str(target),
            f"{MODULE}/cmd/telegraf",
        ],
        folder,
    )
    target.rename(folder / "telegraf")


def _compiler() -> Path:
    try:
        return go()
    except (OSError, subprocess.SubprocessError) as error:
        raise NotBuiltError(f"no Go compiler to build {MODULE}@{VERSION} with: {error}") from error


def _run(command: list[str], folder: Path) -> None:
    environment = os.environ | {"GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NotBuiltError(f"{' '.join(command[:2])} of {MODULE}@{VERSION} took more than {BUILD_SECONDS:.0f} s") from error
    if done.returncode:
        raise NotBuiltError(f"{' '.join(command[:2])} of {MODULE}@{VERSION} failed: {done.stderr.strip()[-500:]}")
