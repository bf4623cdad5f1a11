"""A dashboard as a file that Grafana imports with any data source, and that a provisioned Grafana reads as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import TimeZoneBrowser
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

from tools.dashboards.links import TAG, of_every_board
from tools.dashboards.panels import Panel
from tools.dashboards.variables import INPUT, Variable, datasource, docs

GRAFANA: Final = "11.6.0"
"""The Grafana whose schemas the library has: a newer one brings the files up to date, an older one may not know a field."""
INPUTS: Final = [
    {"name": INPUT, "label": "Prometheus", "description": "", "type": "datasource", "pluginId": "prometheus", "pluginName": "Prometheus"}
]


class Part(NamedTuple):
    """Panels below a heading; the panels of the first part of a dashboard need none."""

    heading: str
    panels: Sequence[Panel]


class Board(NamedTuple):
    """One dashboard: ``name`` is its file's and ends its uid."""

    name: str
    title: str
    about: str
    variables: Sequence[Variable]
    parts: Sequence[Part]
    since: str = "now-1h"
    refresh: str = "15s"

    @property
    def uid(self) -> str:
        """What other dashboards link to."""
        return f"virtflow-{self.name}"

    def text(self) -> str:
        """The file's content."""
        built = json.loads(json.dumps(self._built(), cls=JSONEncoder))
        for number, panel in enumerate(built["panels"], 1):
            panel["id"] = number
        kinds = sorted({panel["type"] for panel in built["panels"]} - {"row"})
        return json.dumps({"__inputs": INPUTS, "__elements": {}, "__requires": _required(kinds), **built}, indent=1) + "\n"

    def _built(self) -> Any:  # noqa: ANN401, the library's model
        board = Dashboard(f"virtflow: {self.title}").uid(self.uid).description(self.about).tags([TAG]).version(1)
        board = board.timezone(TimeZoneBrowser).tooltip(DashboardCursorSync.CROSSHAIR).editable()
        board = board.time(self.since, "now").refresh(self.refresh).links([*of_every_board()]).annotations([])
        board = board.variables([datasource(), docs(), *self.variables])
        for part in self.parts:
            board = board.with_row(Row(part.heading)) if part.heading else board
            for panel in part.panels:
                board = board.with_panel(panel)
        return board.build()


def _required(kinds: Sequence[str]) -> list[dict[str, str]]:
    programs = [
        {"type": "grafana", "id": "grafana", "name": "Grafana", "version": GRAFANA},
        {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
    ]
    return [*programs, *({"type": "panel", "id": kind, "name": kind, "version": ""} for kind in kinds)]
