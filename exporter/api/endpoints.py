"""The endpoints of the API in one table: the routes, the OpenAPI document and docs/api.md are made of it."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from virtflow.exporter.api.answers import EventPage, MigrationPage, NodePage, VmPage
from virtflow.exporter.api.parameters import (
    EVENT_PARAMETERS,
    HISTORY_PARAMETERS,
    MIGRATION_PARAMETERS,
    NODE_PARAMETERS,
    VM_PARAMETERS,
    Parameter,
)
from virtflow.exporter.long_history.answer import VmHistory
from virtflow.exporter.views.rows import FleetOverview, NodeDetail, VmDetail

PREFIX: Final = "/api/v1"
STREAM_TYPE: Final = "text/event-stream"


class ErrorBody(Struct, frozen=True, kw_only=True):
    """What was wrong: of a parameter its name, its value and what is allowed; else only the message."""

    message: str
    parameter: str = ""
    value: str = ""
    allowed: str = ""


class ErrorAnswer(Struct, frozen=True, kw_only=True):
    """The body of every answer with a status of 400 or more."""

    error: ErrorBody


class TargetGroup(Struct, frozen=True, kw_only=True):
    """A group of targets in the form of Prometheus' HTTP service discovery."""

    targets: list[str]
    labels: dict[str, str]


class Endpoint(Struct, frozen=True):
    """One path below ``PREFIX``: its operation's id, what it tells, its parameters, and the type of its answer.

    One that ``asks`` gets its answer from another server, which may not have one.
    """

    path: str
    name: str
    about: str
    answer: Any
    parameters: tuple[Parameter, ...] = ()
    streams: bool = False
    asks: bool = False


ENDPOINTS: Final = (
    Endpoint("/fleet", "fleet", "The whole fleet in numbers, and the VMs that use most.", FleetOverview),
    Endpoint("/vms", "vms", "VMs, sorted and filtered, a page at a time.", VmPage, VM_PARAMETERS),
    Endpoint("/vms/{uuid}", "vm", "One VM: devices with their rates, inventory, guest, migration and its last hour.", VmDetail),
    Endpoint(
        "/vms/{uuid}/history",
        "vm_history",
        "One curve of a VM over days to years, from the history server that `exporter.history_url` names.",
        VmHistory,
        HISTORY_PARAMETERS,
        asks=True,
    ),
    Endpoint("/nodes", "nodes", "Nodes, with what their VMs use together.", NodePage, NODE_PARAMETERS),
    Endpoint("/nodes/{node}", "node", "One node, with what is wrong there.", NodeDetail),
    Endpoint("/migrations", "migrations", "The running or last migration of each VM.", MigrationPage, MIGRATION_PARAMETERS),
    Endpoint(
        "/events",
        "events",
        "What changed: states, migrations, stuck VMs, conflicts, nodes. As JSON, or with `Accept: text/event-stream` as a stream that goes on.",
        EventPage,
        EVENT_PARAMETERS,
        streams=True,
    ),
    Endpoint("/targets", "targets", "The exporters of all shards, for Prometheus' HTTP service discovery.", list[TargetGroup]),
)
BY_NAME: Final = {endpoint.name: endpoint for endpoint in ENDPOINTS}
