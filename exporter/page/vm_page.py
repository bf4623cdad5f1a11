"""A VM's page: what it uses now and in the last hour, its devices, what is known of it, its migration and its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from virtflow.exporter.page import columns
from virtflow.exporter.page.formats import shown
from virtflow.exporter.page.html import Html, el, join
from virtflow.exporter.page.layout import section
from virtflow.exporter.page.sparkline import sparkline
from virtflow.exporter.page.tables import Row, table

CHARTS: Final = (
    ("cpu_cores", "CPU cores", "cores", "cpu_cores"),
    ("steal_cores", "Steal, cores", "cores", "steal_cores"),
    ("memory_used", "Memory in use", "size", "memory_used_bytes"),
    ("read_bytes", "Disk read", "rate", "disk_read_bytes_per_second"),
    ("write_bytes", "Disk written", "rate", "disk_write_bytes_per_second"),
    ("latency", "Disk latency", "latency", "disk_read_latency_seconds"),
    ("receive_bytes", "Received", "rate", "network_receive_bytes_per_second"),
    ("transmit_bytes", "Sent", "rate", "network_transmit_bytes_per_second"),
)
"""The column of the hour, the title, the format, and the field with the present value."""

FACTS: Final = (
    ("state", "State", "word"),
    ("reason", "Reason", "word"),
    ("node", "Node", "text"),
    ("vcpus", "Virtual CPUs", "count"),
    ("cpu_ratio", "CPU in use", "percent"),
    ("memory_ratio", "Memory in use", "percent"),
    ("memory_source", "Memory's source", "text"),
    ("memory_bytes", "Memory", "size"),
    ("memory_maximum_bytes", "Memory at most", "size"),
    ("memory_resident_bytes", "Resident on the host", "size"),
    ("sample_age_seconds", "Age of the sample", "duration"),
    ("monitor_age_seconds", "Its QEMU's last answer", "duration"),
    ("interval_seconds", "Sampled every", "duration"),
)
INVENTORY: Final = (
    ("uuid", "UUID", "text"),
    ("title", "Title", "text"),
    ("project", "Project", "text"),
    ("project_id", "Project's id", "text"),
    ("user", "User", "text"),
    ("user_id", "User's id", "text"),
    ("flavor", "Flavor", "text"),
    ("platform", "Platform", "text"),
    ("platform_name", "Name there", "text"),
    ("namespace", "Namespace", "text"),
    ("machine_type", "Machine type", "text"),
    ("hostname", "Host name (guest)", "text"),
    ("os", "System (guest)", "text"),
    ("agent_up", "Guest agent answers", "yes"),
    ("load1", "Load (guest)", "cores"),
)
MIGRATION: Final = (
    ("migration.result", "Result", "word"),
    ("migration.source", "From", "text"),
    ("migration.destination", "To", "text"),
    ("migration.progress_ratio", "Progress", "percent"),
    ("migration.remaining_bytes", "Remaining", "size"),
    ("migration.elapsed_seconds", "Took", "duration"),
    ("migration.downtime_seconds", "Downtime", "latency"),
    ("migration.started", "Started (UTC)", "clock"),
    ("migration.reason", "Reason", "text"),
)


class Extra(NamedTuple):
    """What a VM's page has besides: links to other servers, and the part with the long history."""

    links: Html | None = None
    history: Html | None = None


def vm_page(vm: Mapping[str, Any], events: Sequence[Row], extra: Extra = Extra()) -> Html:  # noqa: B008, it is immutable
    """The page's content."""
    source = f"vms/{quote(vm['uuid'], safe='')}"
    flags = (el("span", flag.replace("_", " "), class_=f"flag {flag}") for flag in vm["flags"])
    tables = (
        ("Virtual CPUs", columns.VCPUS, "virtual_cpus"),
        ("Disks", columns.DISKS, "disks"),
        ("Network", columns.INTERFACES, "interfaces"),
        ("Filesystems, as the guest says", columns.FILESYSTEMS, "filesystems"),
        ("Addresses", columns.ADDRESSES, "addresses"),
    )
    return join(
        el("h1", el("bdi", vm["name"] or vm["uuid"]), " ", el("span", *flags, data_flags="flags")),
        extra.links,
        section("Now", facts(vm, FACTS), source=source),
        section("The last hour", el("div", *(_chart(vm, *each) for each in CHARTS), class_="charts"), source=source),
        extra.history,
        *(section(title, table(title, of, vm[path], path), source=source) for title, of, path in tables),
        section(
            "Migration",
            facts(vm, MIGRATION) if vm["migration"] else el("p", "None.", class_="nothing"),
            source=source if vm["migration"] else "",
        ),
        section("Inventory", facts(vm, INVENTORY), source=source),
        section("Events", table("Events", columns.EVENTS, events, "items"), source=f"events?{urlencode({'vm': vm['uuid'], 'limit': 20})}"),
    )


def facts(vm: Mapping[str, Any], rows: Sequence[tuple[str, str, str]]) -> Html:
    """Values with their names; they carry their field for the scripts."""
    return el("dl", *(el("div", el("dt", title), el("dd", _fact(vm, path, form))) for path, title, form in rows), class_="facts")


def _fact(vm: Mapping[str, Any], path: str, form: str) -> Html:
    return el("bdi", shown(form, value_at(vm, path)), data_value=path, data_format=form)


def value_at(answer: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401, any value of JSON
    """The value at a path of names with dots; None where a part of it is."""
    value: Any = answer
    for word in path.split("."):
        value = value[word] if value is not None else None
    return value


def _chart(vm: Mapping[str, Any], column: str, title: str, form: str, now: str) -> Html:
    text = el("figcaption", title, " ", el("b", shown(form, vm[now]), data_value=now, data_format=form))
    return el("figure", text, sparkline(vm["hour"][column], form, title, field=f"hour.{column}"))
