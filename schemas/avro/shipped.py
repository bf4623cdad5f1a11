"""The schema files in the package."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def shipped_schemas() -> list[tuple[str, dict[str, Any]]]:
    """Every schema in the package with its path: the current ones first, then each released version's."""
    from importlib import resources

    found = []
    for folder in ("avsc", "released"):
        files = sorted(_files(resources.files("virtflow.schemas").joinpath(folder), folder))
        found += [(path, json.loads(text)) for path, text in files if path.endswith(".avsc")]
    return found


def current_schemas() -> list[dict[str, Any]]:
    """The schemas that this version writes with."""
    from importlib import resources

    files = sorted(_files(resources.files("virtflow.schemas").joinpath("avsc"), "avsc"))
    return [json.loads(text) for path, text in files if path.endswith(".avsc")]


def _files(folder: Traversable, path: str) -> list[tuple[str, str]]:
    if not folder.is_dir():
        return []
    found = []
    for entry in folder.iterdir():
        where = f"{path}/{entry.name}"
        found += _files(entry, where) if entry.is_dir() else [(where, entry.read_text("utf-8"))]
    return found
