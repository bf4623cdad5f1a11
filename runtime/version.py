"""The version of this installation, from the distribution's own metadata."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """The installed version, or ``unknown`` where the code runs without having been installed."""
    try:
        return metadata.version("virtflow")
    except metadata.PackageNotFoundError:
        return "unknown"
