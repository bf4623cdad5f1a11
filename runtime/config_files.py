"""Which settings files a part reads, and which secrets systemd gives it.

A host has one folder, ``/etc/virtflow``: ``virtflow.toml`` is shared, ``PART.toml`` is one part's, ``PART@INSTANCE.toml`` one instance's.
Later ones win. So each part has its own user on the broker, and a file that its own user alone can read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from virtflow.runtime.secrets import CREDENTIALS

CONFIG_VARIABLE: Final = "VIRTFLOW_CONFIG"
INSTANCE_VARIABLE: Final = "VIRTFLOW_INSTANCE"
DEFAULT_FOLDER: Final = Path("/etc/virtflow")
CREDENTIAL_STORE: Final = Path("/etc/credstore")
"""Where systemd looks for credentials that a unit names without a path (source: systemd.exec(5), LoadCredential=)."""
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
"""Set by systemd in a service that has credentials."""
SHARED_FILE: Final = "virtflow.toml"

_BUS: Final = ("kafka", "topics", "registry")
SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "producer": ("libvirt", "producer", "guest", *_BUS, "log"),
    "processors": (*_BUS, "processors", "web", "log"),
    "exporter": (*_BUS, "exporter", "web", "log"),
    "adapter": (*_BUS, "adapter", "web", "log"),
    "history": (*_BUS, "history", "web", "log"),
    "node": ("libvirt", "producer", "guest", "processors", "exporter", "web", "log"),
    "simulate": ("simulate", "producer", *_BUS, "log"),
    "tap": (*_BUS, "log"),
    "topics": (*_BUS, "log"),
}
"""The sections that each part reads. A part has a file of its name: tap and topics have users of their own on the broker, too."""
SHARED_SECTIONS: Final = (*_BUS, "web", "log")
"""The sections that more than one part of the centre reads."""
READS_AS: Final[Mapping[str, str]] = {"snapshot": "producer", "doctor": "producer", "migrations": "tap"}
"""Commands that have no file of their own, and whose part's file they read."""


def part_of(command: str) -> str:
    """The part whose settings a command reads, by the command's first word; "" where it reads the shared ones alone."""
    name = READS_AS.get(command, command)
    return name if name in SECTIONS else ""


def chosen_files(named: Path | None, environ: Mapping[str, str], part: str = "") -> tuple[Path, ...]:
    """The settings files that are read, the last one wins; empty where there are none.

    ``named``, else what ``VIRTFLOW_CONFIG`` names, else ``/etc/virtflow``: a file is read alone, of a folder those that exist.
    A folder that was named and has none of them is returned itself: it can't be read, and the error says so.
    """
    given = _given(named, environ)
    folder = config_folder(named, environ)
    if folder is None:
        return () if given is None else (given,)
    found = tuple(file for file in _candidates(folder, environ, part) if os.path.lexists(file))
    return found or ((folder,) if given is not None else ())


def config_folder(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The folder whose files are read; None where one file is read alone, or none is there."""
    place = _given(named, environ) or DEFAULT_FOLDER
    return place if place.is_dir() else None


def _given(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    return named or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)


def _candidates(folder: Path, environ: Mapping[str, str], part: str) -> Iterator[Path]:
    yield folder / SHARED_FILE
    if part:
        yield folder / f"{part}.toml"
        if instance := environ.get(INSTANCE_VARIABLE):
            yield folder / f"{part}@{instance}.toml"


def credentials(environ: Mapping[str, str], part: str) -> Iterator[tuple[str, Path]]:
    """The secrets that systemd gives a part: each with the setting that names it, and its file.

    In a service they are in the folder that systemd names, under the setting's name. Elsewhere they are read where the part's unit has them from:
    so `virtflow check --for PART`, as root, sees what the service will see.
    """
    folder = environ.get(CREDENTIALS_VARIABLE, "")
    for setting in sorted(CREDENTIALS):
        file = Path(folder, setting) if folder else CREDENTIAL_STORE / credential_name(part, setting)
        # Unlike Path.is_file, this says no where the folder can't be searched.
        if part and os.path.isfile(file):  # noqa: PTH113
            yield setting, file


def credential_name(part: str, setting: str) -> str:
    """The name under which the credential store has a part's secret."""
    return f"virtflow-{part}.{setting}"


def unread_files(folder: Path) -> list[Path]:
    """The settings files of a folder that no part reads: misspelt ones."""
    known = {SHARED_FILE.removesuffix(".toml"), *SECTIONS}
    return sorted(file for file in folder.glob("*.toml") if file.stem.partition("@")[0] not in known)
