"""The choices above a dashboard's panels."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import ConstantVariable, DatasourceVariable, QueryVariable
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh, VariableSort

from tools.dashboards.links import DOCS

INPUT: Final = "DS_PROMETHEUS"
"""What Grafana asks for when a dashboard is imported: the data source that is chosen at first."""
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The data source of every query: the chosen one."""

Variable = ConstantVariable | DatasourceVariable | QueryVariable


def datasource() -> Variable:
    """Which Prometheus. Where the file is provisioned rather than imported, the input has no value, and Grafana takes the first one."""
    first = VariableOption(text=f"${{{INPUT}}}", value=f"${{{INPUT}}}", selected=True)
    return DatasourceVariable("datasource").label("Prometheus").type("prometheus").current(first)


def docs() -> Variable:
    """Where the documentation is: hidden, for an own copy to be set in the dashboard's settings."""
    about = "Base of the links to runbooks, without a slash at its end."
    return ConstantVariable("docs").label("Documentation").description(about).value(DOCS)


def node(*, multi: bool = True) -> Variable:
    """Which hypervisors."""
    return _several("node", "Hypervisor", "label_values(virtflow_node_up, node)").multi(multi)


def project() -> Variable:
    """Whose VMs; a VM without a project is among all."""
    return _several("project", "Project", 'label_values(vm_info{node=~"$node"}, project)').multi(True)  # noqa: FBT003, the library's own


def vm() -> Variable:
    """Which VM: chosen by its name, known by its uuid."""
    query = _queried("uuid", "VM", 'query_result(vm_info{node=~"$node"})')
    return query.regex('/name="(?<text>[^"]*)".*uuid="(?<value>[^"]+)"/').multi(False).include_all(False)  # noqa: FBT003, the library's own


def _several(name: str, label: str, query: str) -> QueryVariable:
    everything = VariableOption(text="All", value="$__all", selected=True)
    return _queried(name, label, query).include_all(True).all_value(".*").current(everything)  # noqa: FBT003, the library's own


def _queried(name: str, label: str, query: str) -> QueryVariable:
    asked = QueryVariable(name).label(label).datasource(SOURCE).query({"query": query, "refId": "variable"})
    return asked.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
