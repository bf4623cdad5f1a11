"""All dashboards, as files and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.dashboards import consumers, fleet, migrations, node_pressure, pipeline, service_level, vm
from tools.dashboards.board import Board

FOLDER: Final = Path(__file__).resolve().parents[2] / "deploy" / "grafana"


def boards() -> list[Board]:
    """Every dashboard, in the order of the documentation."""
    modules = (fleet, vm, service_level, node_pressure, consumers, migrations, pipeline)
    return [module.board() for module in modules]


def files() -> Iterator[tuple[Path, str]]:
    """The file of each dashboard."""
    for board in boards():
        yield FOLDER / f"{board.name}.json", board.text()
