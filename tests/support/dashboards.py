"""The dashboards as files, and every query in them as Prometheus would get it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FILES = sorted((Path(__file__).resolve().parents[2] / "deploy" / "grafana").glob("*.json"))


class Query(NamedTuple):
    """What a panel or a variable asks."""

    place: str
    promql: str


def read(file: Path) -> dict[str, Any]:
    """A dashboard's file."""
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def queries(file: Path) -> Iterator[Query]:
    """Every query of a dashboard, variables' queries included, with Grafana's variables in them."""
    board = read(file)
    for panel in board["panels"]:
        yield from (Query(f"{file.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", []))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield Query(f"{file.stem}: ${variable['name']}", inner(variable["query"]["query"]))


def inner(query: str) -> str:
    """What Grafana's function of a variable looks at."""
    return re.sub(r"^(?:label_values|query_result)\((.+?)(?:, *\w+)?\)$", r"\1", query)


def filled(promql: str, values: Mapping[str, str]) -> str:
    """A query with Grafana's variables replaced; KeyError for one without a value."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: values[match[1] or match[2]], promql)
