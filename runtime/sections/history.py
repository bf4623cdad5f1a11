"""Settings of the long history: its tables, its writer, and what `history serve` may take."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from virtflow.runtime.sections.rows import Seconds, address, row, server_url


class History(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The long history: tables on a folder or on S3-compatible storage."""

    path: Annotated[str, row("Folder or s3://BUCKET/PREFIX that holds the tables.", "--history")] = "/var/lib/virtflow/history"
    s3_endpoint: Annotated[str, server_url("URL of an S3-compatible server; Amazon's own when empty.", "https://s3:9000")] = ""
    s3_region: Annotated[str, row("Region of the bucket.")] = "us-east-1"
    s3_access_key_file: Annotated[str, row("File that holds the access key and nothing else; the environment's when empty.")] = ""
    s3_secret_key_file: Annotated[str, row("File that holds the secret key and nothing else; the environment's when empty.")] = ""
    s3_instance_credentials: Annotated[
        bool, row("Take the keys that the machine's own metadata service gives, where no other ones are set.")
    ] = False
    storage: Annotated[dict[str, str], row("Further settings of the object store, passed through as they are.")] = field(
        default_factory=dict
    )
    sync: Annotated[
        Literal["commit", "never"],
        row(
            "Where path is a folder: force files and commits to the disk before they count, or leave that to the system, so that "
            "a power cut may cost the last commits, which the writer reads again while Kafka has them."
        ),
    ] = "commit"
    group: Annotated[str, Meta(description="Consumer group of the writers.", min_length=1)] = "virtflow-history"
    instance: Annotated[
        str, row("Name of this writer in its group, unique and kept over restarts: it then takes over at once after a crash.")
    ] = ""
    listen: Annotated[str, address("Where the writer serves its own /metrics, /healthz and /readyz.")] = "127.0.0.1:9179"
    commit_rows: Annotated[int, row("Records held in memory at most: a commit is made when so many wait.", ge=1, le=1000000)] = 20_000
    batch_bytes: Annotated[
        int,
        row(
            "Bytes of messages held in memory at most: a commit is made when so many wait, and earlier while memory is short. A commit takes "
            "about 30 times as much for a moment.",
            ge=65_536,
            le=2**31,
        ),
    ] = 16_777_216
    commit_seconds: Annotated[Seconds, row("A commit is made when the oldest record has waited for so long.", ge=0.1, le=3600)] = 5.0
    future_seconds: Annotated[
        Seconds, row("How far a record's time may be ahead of its arrival; beyond that it is left out and counted.", ge=0, le=31536000)
    ] = 86_400.0
    raw_days: Annotated[int, row("How long samples are kept.", ge=1, le=36500)] = 30
    hourly_days: Annotated[int, row("How long hourly rows are kept.", ge=1, le=36500)] = 396
    daily_days: Annotated[int, row("How long daily rows, migrations and inventory are kept.", ge=1, le=36500)] = 3652
    events_days: Annotated[int, row("How long events are kept.", ge=1, le=36500)] = 396
    vacuum_hours: Annotated[
        int, row("How long files that no version names any more are kept for readers that started before.", ge=1, le=8760)
    ] = 24
    maintain_seconds: Annotated[
        Seconds, row("How often the writer rolls up, compacts and cleans; 0 leaves that to `history compact`.", ge=0, le=86400)
    ] = 600.0
    serve_listen: Annotated[str, address("Where `history serve` answers Prometheus.")] = "127.0.0.1:9180"
    query_memory_bytes: Annotated[int, row("Memory a query may take.", "--memory", ge=16_777_216)] = 1_073_741_824
    query_seconds: Annotated[Seconds, row("How long a query may take.", "--timeout", ge=0.1, le=86400)] = 60.0
    query_rows: Annotated[int, row("Rows a query may return.", ge=1, le=100000000)] = 1_000_000
    query_bytes: Annotated[int, row("Bytes a query's answer may have.", ge=65_536)] = 268_435_456
    serve_labels: Annotated[
        dict[str, str], row("Labels put on every series that `history serve` returns, as a scrape would: job=virtflow.")
    ] = field(default_factory=dict)
    serve_queries: Annotated[int, row("Queries of one remote_read request; Prometheus asks one.", ge=1, le=1000)] = 16
    serve_series: Annotated[int, row("Series one remote_read request may touch, over all its queries.", ge=1, le=10000000)] = 20_000
    serve_samples: Annotated[int, row("Samples one remote_read request may return, over all its queries.", ge=1, le=1000000000)] = (
        20_000_000
    )
    serve_memory_bytes: Annotated[
        int,
        row(
            "Memory one request may take in a process that reads for `history serve`, of which there are two; a sample takes about 300 bytes.",
            ge=16_777_216,
        ),
    ] = 2_147_483_648
    serve_prometheus: Annotated[
        str,
        row(
            "Program of a Prometheus that evaluates PromQL for `history serve`, started when the first query comes; nothing evaluates it when empty.",
            "--prometheus",
        ),
    ] = "prometheus"
    tenant_header: Annotated[
        str,
        row(
            "HTTP header of `history serve` that names the project whose VMs a request may see; whoever can reach the server can send it, so a proxy in front must set it.",
            "--tenant-header",
        ),
    ] = ""
    tenant_tokens_file: Annotated[
        str,
        row(
            "File of lines `TOKEN PROJECT` for `history serve`: a request with `Authorization: Bearer TOKEN` sees the VMs of that project, all others are refused."
        ),
    ] = ""
    serve_days: Annotated[int, row("Longest range of one remote_read query.", ge=1, le=36500)] = 3660
