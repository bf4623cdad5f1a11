"""Imports a part of virtflow when a command needs it, so that other parts need not be loaded, or even installed."""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from virtflow.schemas.errors import EnvironmentProblemError

PACKAGED: Final = Path("/usr/lib/virtflow")
"""Where Debian packages have their Python environments: nothing is installed into one by hand."""


def install_command(extra: str, missing: Collection[str]) -> str:
    """The command that brings what a part's extra is ``missing`` here: apt's in an environment of a Debian package, else pip's."""
    if not Path(sys.prefix).is_relative_to(PACKAGED):
        return f"pip install 'virtflow[{extra}]'"
    if set(missing) == {"libvirt"}:
        return "apt-get install python3-libvirt"
    return f"apt-get install virtflow-{'producer' if extra == 'producer' else 'centre'}"


def part(module: str, extra: str) -> Any:  # noqa: ANN401, a module
    """The module of a part; raises ``EnvironmentProblemError`` where a package of the part's extra is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith("virtflow"):
            raise
        raise EnvironmentProblemError(
            thing="package", value=missing, why="not installed", fix=f"install it with {install_command(extra, [missing])}"
        ) from error
