"""Imports a part of virtflow when a command needs it, so that other parts need not be loaded, or even installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from virtflow.schemas.errors import EnvironmentProblemError


def part(module: str, extra: str) -> Any:  # noqa: ANN401, a module
    """The module of a part; raises ``EnvironmentProblemError`` where a package of the part's extra is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith("virtflow"):
            raise
        raise EnvironmentProblemError(
            thing="package", value=missing, why="not installed", fix=f"install it with pip install 'virtflow[{extra}]'"
        ) from error
