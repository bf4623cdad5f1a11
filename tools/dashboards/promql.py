"""PromQL that several dashboards share, and what the names in a query mean.

A value of a multi-value variable stands in ``=~"$name"``: there Grafana escapes it as a regular expression. One of a single-value variable
stands in ``="$name"``: there it is escaped as text. A test holds this for every query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from virtflow.schemas.catalogue.metrics import BY_NAME

RULES: Final = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "rules.yml"
HOST_METRICS: Final = {
    "node_cpu_seconds_total": "CPU time of the host by CPU and mode, from node_exporter.",
    "node_memory_MemTotal_bytes": "Memory of the host, from node_exporter.",
    "node_uname_info": "Names of the host, from node_exporter; always 1.",
}
"""What is asked of Prometheus' node_exporter, because virtflow knows nothing of the host itself."""

NAME: Final = re.compile(r"(?<![\w:\"{,])(?:vm|node|node_project|virtflow)[_:][A-Za-z0-9_:]+")

OF_NODE: Final = 'node=~"$node"'
OF_PROJECT: Final = 'node=~"$node",project=~"$project"'
OF_VM: Final = 'uuid="$uuid"'
CHOSEN_VMS: Final = f"and on (uuid) vm_info{{{OF_PROJECT}}}"
"""Restricts series of VMs to those of the chosen hypervisors and projects; a VM's hypervisor and project are labels of ``vm_info`` only."""

UNPLANNED: Final = (
    'state="crashed"',
    'state="shut_off",reason=~"crashed|failed|daemon"',
    'state="paused",reason=~"io_error|watchdog|crashed|postcopy_failed|api_error"',
)
"""States, each with its reasons, that nobody asked for: selectors of ``vm_state_info`` and of ``node_project:vms:count``."""
PLANNED: Final = ('state="shut_off",reason!~"crashed|failed|daemon|migrated"',)
"""A VM that was shut down, destroyed, saved or reverted, or that is shut off for a reason that libvirt does not know."""


def any_of(metric: str, selectors: Iterable[str], more: str = "") -> str:
    """Series of ``metric`` that match at least one of the selectors; ``more`` are label matchers that all have in common."""
    return " or ".join(f"{metric}{{{','.join(filter(None, (selector, more)))}}}" for selector in selectors)


def entered(selectors: Iterable[str]) -> str:
    """VMs that are in one of the states and were in none of them one step of the graph before, though they were known then."""
    wanted = any_of("vm_state_info", selectors)
    before = any_of("vm_state_info", selectors).replace("}", "} offset $__interval")
    return f"({wanted}) unless on (uuid) ({before}) and on (uuid) vm_state_info offset $__interval {CHOSEN_VMS}"


def top(promql: str, count: int = 10) -> str:
    """The VMs with the highest values among the chosen ones."""
    return f"topk({count}, {promql} {CHOSEN_VMS})"


def meaning(queries: Iterable[str]) -> str:
    """A Markdown list of what each metric in the queries means, in the catalogue's words; "" where there is none.

    A recording rule is followed by the metrics that it is made of. KeyError for a name that nothing has.
    """
    names = dict.fromkeys(name for promql in queries for name in _with_parts(promql))
    return "\n".join(f"- `{name}`: {_meaning(name)}" for name in names)


def _with_parts(promql: str) -> list[str]:
    """The names in a query, each rule followed by the names in its expression; ``vm_info`` only chooses VMs."""
    found = []
    for name in NAME.findall(re.sub(r'"[^"]*"', '""', promql)):
        if name != "vm_info":
            found += [name, *(_with_parts(recorded()[name]) if ":" in name else [])]
    return found


def _meaning(name: str) -> str:
    if ":" in name:
        return f"recorded by a rule of deploy/prometheus/{RULES.name}."
    return HOST_METRICS[name] if name in HOST_METRICS else BY_NAME[name].help


@cache
def recorded() -> dict[str, str]:
    """The recording rules: expressions by name."""
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}
