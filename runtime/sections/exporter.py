"""Settings of the exporter."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from virtflow.runtime.sections.rows import Seconds, address, row, server_url


class Exporter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet's /metrics."""

    listen: Annotated[str, address("Where /metrics is served.")] = "127.0.0.1:9177"
    read_back_seconds: Annotated[
        Seconds, row("How much of vm.metrics is read back at start; at least three sampling intervals.", ge=0, le=86400)
    ] = 60.0
    forget_node_seconds: Annotated[Seconds, row("How long a silent node is shown as down before it is forgotten.", ge=60, le=31536000)] = (
        86400.0
    )
    shard: Annotated[
        str,
        Meta(
            description="Part of the fleet this exporter serves, by partition: 2/3 is the second of three. Everything when empty.",
            extra={"switch": "--shard"},
            pattern=r"^([0-9]{1,4}/[0-9]{1,4})?$",
        ),
    ] = ""
    include: Annotated[list[str], row("Groups or metric names to export, separated by commas; all when empty.", "--include")] = field(
        default_factory=list
    )
    exclude: Annotated[list[str], row("Groups or metric names to leave out, separated by commas.", "--exclude")] = field(
        default_factory=list
    )
    always_export: Annotated[
        bool,
        row(
            "Export every ephemeral metric of every VM from the first scrape on, with the absent value until there is a real one.",
            "--always-export",
        ),
    ] = False
    absent_value: Annotated[
        str,
        Meta(
            description="What --always-export shows where there is no real value: NaN (not known, in no comparison), or a number.",
            extra={"switch": "--absent-value"},
            pattern=r"^(NaN|[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?)$",
        ),
    ] = "NaN"
    keep_last: Annotated[
        bool, row("Keep showing a migration's last values after it has ended, until the VM's next one starts.", "--keep-last")
    ] = False
    keep_file: Annotated[str, row("File in which `virtflow node` keeps the last migrations for --keep-last.")] = (
        "/var/lib/virtflow/node/migrations.jsonl"
    )
    vm_labels: Annotated[list[str], row("Labels of every VM's series beside uuid: name, or fields of the inventory.", "--vm-labels")] = (
        field(default_factory=lambda: ["name"])
    )
    label_value_bytes: Annotated[
        int,
        row(
            "Bytes of a label's value (UTF-8) that are shown; a longer one is cut and ends in a hash of the whole. Set it to your Prometheus' "
            "label_value_length_limit, which otherwise rejects the whole scrape for one long value.",
            ge=64,
            le=65_536,
        ),
    ] = 1_024
    fleet_page: Annotated[
        bool,
        row(
            "Serve the fleet page at / and the JSON API below /api/v1, and keep the last hour of each VM in memory for them, 2 KiB a VM; "
            "without it / is a page of links.",
            "--fleet-page",
        ),
    ] = True
    targets: Annotated[
        list[str],
        row(
            "HOST:PORT of the exporters of all shards, the first shard's first, for Prometheus' HTTP service discovery at /api/v1/targets; "
            "this exporter alone when empty.",
            "--targets",
        ),
    ] = field(default_factory=list)
    history_url: Annotated[
        str,
        server_url(
            "URL of `virtflow history serve`, or of another server of Prometheus' HTTP API, for charts of days to years on a VM's page; "
            "no such charts when empty.",
            "http://history:9180",
            "--history-url",
        ),
    ] = ""
    history_tls_ca_file: Annotated[str, row("CA certificates the history server is checked against; the system's when empty.")] = ""
    history_username: Annotated[
        str, row("User of the history server (HTTP basic authentication); the password is in history_password_file.")
    ] = ""
    history_password_file: Annotated[str, row("File that holds the history server's password and nothing else.")] = ""
    history_token_file: Annotated[str, row("File that holds the history server's bearer token and nothing else, instead of a user.")] = ""
    history_tenant_header: Annotated[
        str,
        Meta(
            description="HTTP header by which the history server is told a VM's project, as its history.tenant_header: "
            "a VM's charts then show the time in which it was its present project's.",
            pattern=r"^([A-Za-z0-9-]{1,100})?$",
        ),
    ] = ""
    history_timeout_seconds: Annotated[
        Seconds, row("How long the history server may take; never more than three fifths of request_timeout_seconds.", ge=0.1, le=300)
    ] = 9.0
    grafana_url: Annotated[
        str,
        server_url(
            "URL of the Grafana that has virtflow's dashboards, for links on the fleet page; no links when empty.", "https://grafana:3000"
        ),
    ] = ""
    docs_url: Annotated[
        str,
        server_url(
            "Where virtflow's documentation is read, for links to runbooks on the fleet page; no links when empty.", "https://docs/virtflow"
        ),
    ] = "https://github.com/virtflow/virtflow/blob/main/docs"
    connections: Annotated[int, row("HTTP connections that may be open at once.", ge=1, le=100000)] = 256
    request_timeout_seconds: Annotated[Seconds, row("How long a client may take to send a request or take the answer.", ge=0.1, le=600)] = (
        15.0
    )
