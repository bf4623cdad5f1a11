"""Where the dashboards link to: each other, and the pages of the documentation."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

DOCS: Final = "https://github.com/virtflow/virtflow/blob/main/docs"
"""Where the folder docs can be read: the value of the variable ``docs`` of every dashboard, and nowhere else."""
TAG: Final = "virtflow"
_KEPT: Final = "${datasource:queryparam}&${__url_time_range}"
"""The chosen data source and the time, which a link takes along."""


def to_vm(field: str) -> DashboardLink:
    """From a VM to its dashboard; ``field`` is Grafana's expression for its uuid."""
    return DashboardLink("Show this VM").url(f"/d/virtflow-vm/virtflow-vm?var-uuid={field}&{_KEPT}")


def to_node(field: str) -> DashboardLink:
    """From a hypervisor to its pressure; ``field`` is Grafana's expression for its name."""
    return DashboardLink("Show this hypervisor").url(f"/d/virtflow-node-pressure/virtflow-node-pressure?var-node={field}&{_KEPT}")


SERIES_VM: Final = "${__field.labels.uuid}"
SERIES_NODE: Final = "${__field.labels.node}"
CELL: Final = "${__value.raw}"
ROW_VM: Final = "${__data.fields.uuid}"


def to_page(title: str, page: str) -> DashboardLink:
    """To a page of the documentation: a path below docs, Grafana's expressions allowed."""
    return DashboardLink(title).type(DashboardLinkType.LINK).url(f"${{docs:raw}}/{page}").target_blank(True)  # noqa: FBT003, the library's own


def to_runbook(alert: str) -> DashboardLink:
    """To the page that says what to do when an alert fires."""
    return to_page(f"Runbook: {alert}", f"runbooks/{alert}.md")


def of_every_board() -> list[DashboardLink]:
    """What stands above the panels of each dashboard: the other dashboards, and the runbooks."""
    others = DashboardLink(TAG).type(DashboardLinkType.DASHBOARDS).tags([TAG]).icon("external link")
    others = others.include_vars(True).keep_time(True)  # noqa: FBT003, the library's own
    return [others, to_page("Runbooks", "runbooks/README.md").icon("doc")]
