"""Links from the page to what lies elsewhere: the runbooks and Grafana's dashboards. Nothing is loaded from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from virtflow.exporter.page.html import Html, el

VM_BOARD: Final = "/d/virtflow-vm/virtflow-vm"
NODE_BOARD: Final = "/d/virtflow-node-pressure/virtflow-node-pressure"
RUNBOOKS: Final = {"stuck": "VirtflowVmStuck", "conflict": "VirtflowVmSplitBrain"}
"""What is wrong with a VM, by its flag, and the alert whose runbook says what to do."""
MIGRATION_RUNBOOKS: Final = {"failed": "VirtflowMigrationFailed", "cancelled": "VirtflowMigrationFailed"}


class Links:
    """Makes links by the settings."""

    def __init__(self, grafana_url: str, docs_url: str) -> None:
        """Without ``grafana_url`` there is no link to Grafana, without ``docs_url`` none to a runbook."""
        self._grafana = grafana_url.rstrip("/")
        self.docs: Final = docs_url.rstrip("/")

    def runbook(self, alert: str) -> Html | None:
        """To the page about an alert; None where nothing is to be linked."""
        if not self.docs or not alert:
            return None
        return away(f"Runbook: {alert}", f"{self.docs}/runbooks/{alert}.md")

    def of_vm(self, vm: Mapping[str, Any]) -> Html | None:
        """To the VM's dashboard, and to the runbooks of what is wrong with it; None where there is nothing to link to."""
        board = away("Grafana: this VM", f"{self._grafana}{VM_BOARD}?{urlencode({'var-uuid': vm['uuid']})}") if self._grafana else None
        return listed([board, *(self.runbook(alert) for alert in alerts_of(vm))])

    def of_node(self, node: str) -> Html | None:
        """To the node's dashboard."""
        board = f"{self._grafana}{NODE_BOARD}?{urlencode({'var-node': node})}"
        return listed([away("Grafana: this node", board) if self._grafana else None])


def alerts_of(vm: Mapping[str, Any]) -> list[str]:
    """The alerts that what is known of a VM may belong to."""
    found = [RUNBOOKS[flag] for flag in vm["flags"] if flag in RUNBOOKS]
    if vm["state"] == "crashed":
        found.append("VirtflowVmCrashed")
    if vm["state"] == "paused" and vm["reason"] == "io_error":
        found.append("VirtflowVmIoError")
    migration = vm["migration"] or {}
    if migration.get("result") in MIGRATION_RUNBOOKS:
        found.append(MIGRATION_RUNBOOKS[migration["result"]])
    if migration.get("result") == "running" and migration.get("converging") is False:
        found.append("VirtflowMigrationNotConverging")
    return found


def away(title: str, url: str) -> Html:
    """A link to another server, which is told nothing of where it came from."""
    return el("a", title, href=url, rel="noreferrer noopener")


def listed(links: list[Html | None]) -> Html | None:
    """Links as a list; None where there is none."""
    known = [link for link in links if link is not None]
    return el("ul", *(el("li", link) for link in known), class_="links") if known else None
