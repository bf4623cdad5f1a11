"""``docs/dashboards.md``: what the dashboards show, how they come into a Grafana, and how they are made."""

from __future__ import annotations

import json
from typing import Any, Final

from tools.dashboards.board import GRAFANA, Board
from tools.dashboards.catalogue import boards
from tools.dashboards.links import DOCS
from tools.documents import NOTICE, table

HOW: Final = f"""Files for Grafana {GRAFANA.removesuffix(".0")} and later in [deploy/grafana](../deploy/grafana). Their queries need the recording rules of
[deploy/prometheus/rules.yml](../deploy/prometheus/rules.yml).

## Import
- **By hand.** In Grafana choose *Dashboards*, *New*, *Import*, and one file after another. Grafana asks for the Prometheus data source
  of each; any uid will do.
- **Provisioned**, as in the compose file: a provider of the type `file` reads the folder
  ([an example](../deploy/container/grafana/dashboards/virtflow.yml)). Nothing is asked then, and Grafana takes its first Prometheus data source.

## Choices above the panels
| choice | what it does |
| --- | --- |
| Prometheus | the data source of all queries; links take it along |
| Hypervisor | one, several or all. A name with dots or brackets is safe: Grafana escapes it in a query |
| Project | of the VMs' inventory; a VM without a project is among all |
| VM | chosen by its name, known by its uuid: a VM that migrates or is renamed stays the same |

A click on a VM's line or row leads to its dashboard, one on a hypervisor's to its pressure; a panel that belongs to an alert links to its
[runbook](runbooks/README.md). Each panel's description ends with what the metrics in its queries mean, in the words of [metrics.md](metrics.md).

Links to runbooks begin with the hidden variable `docs`, which is `{DOCS}`. Set another base in a dashboard's settings,
under *Variables*; or for all files as `DOCS` in `tools/dashboards/links.py`, and run `scripts/generate`.

## What the host has
virtflow measures VMs, not hosts: the ratios of overcommit need node_exporter on the hypervisors, scraped by the same Prometheus. A host is
found by its own name (`nodename` of `node_uname_info`), which is the producer's unless `producer.node` says otherwise. With other names, or
without node_exporter, these panels are empty and all others are not.

Two exporters with the same shard, scraped as two jobs, count twice in sums.
"""

MADE: Final = """## How they are made
`tools/dashboards/` has a module for each dashboard, and one each for panels, variables and links; `scripts/generate` writes the files, and CI
compares. The library is Grafana's own [grafana-foundation-sdk](https://github.com/grafana/grafana-foundation-sdk), pinned in
`requirements-dev.lock`: it is generated from Grafana's schemas, has types and no dependencies, and nothing that runs needs it. grafanalib, the
older choice, has had no release since January 2024.

`tests/contract/test_dashboards.py` reads every file with the library's models, and holds links, layout and escaping;
`tests/integration/test_dashboards.py` asks a real Prometheus every query while simulated VMs work and migrate. How Grafana draws them is not
tested, and there is no picture of it. Grafana's server is in neither Debian, PyPI, npm nor Maven Central, which the tests install from (npm's
`@grafana/*` are libraries), and building it from its Go module would bring a program under the AGPL into the tests.
"""


def dashboards_page() -> str:
    """The page."""
    found = boards()
    listed = [
        (f"[{board.title}](#{_anchor(board)})", f"[{board.name}.json](../deploy/grafana/{board.name}.json)", board.about) for board in found
    ]
    parts = [NOTICE, "# Dashboards", table(("dashboard", "file", "what it shows"), listed), HOW.strip(), MADE.strip()]
    return "\n\n".join([*parts, *(_section(board) for board in found)]) + "\n"


def _anchor(board: Board) -> str:
    return _heading(board).lower().replace(" ", "-")


def _heading(board: Board) -> str:
    return f"Panels of {board.title}"


def _section(board: Board) -> str:
    panels: list[dict[str, Any]] = json.loads(board.text())["panels"]
    row, lines = "", []
    for panel in panels:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        lines.append((row, panel["title"], panel["description"].partition("\n")[0]))
    return f"## {_heading(board)}\n\n{table(('row', 'panel', 'what it shows'), lines)}"
