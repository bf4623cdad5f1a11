"""Every setting, declared once: type, default, bounds, switch and help.

From the rows come the TOML file, the environment variables (``VIRTFLOW_SECTION_KEY``), the switches, ``config sample`` and
``docs/settings.md``. Later ones win: default, file, environment, switch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Seconds = float
ADDRESS_PATTERN = r"^(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):[0-9]{1,5}$"

_META: Any = Meta
"""``Meta`` without its overloads, which forbid to pass bounds on."""


def _row(about: str, switch: str = "", **bounds: float) -> Meta:
    meta: Meta = _META(description=about, extra={"switch": switch}, **bounds)
    return meta


def _address(about: str) -> Meta:
    return Meta(description=about, extra={"switch": "--listen"}, pattern=ADDRESS_PATTERN)


class Libvirt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The connection to libvirt on a hypervisor."""

    uri: Annotated[str, _row("libvirt connection URI.", "--connect")] = "qemu:///system"
    connect_timeout_seconds: Annotated[Seconds, _row("How long connecting may take before it is given up.", ge=0.1, le=600)] = 10.0
    keepalive_seconds: Annotated[int, _row("Interval of keepalive messages to libvirt.", ge=1, le=60)] = 2
    keepalive_count: Annotated[int, _row("Keepalive messages without an answer after which the connection is lost.", ge=1, le=20)] = 2
    reconnect_maximum_seconds: Annotated[Seconds, _row("Longest pause between attempts to reconnect.", ge=0.1, le=3600)] = 10.0
    migration_status: Annotated[
        bool,
        _row(
            "Also listen, on a second connection that may write, to QEMU's own status of its migrations: libvirt tells a read-only client "
            "that a migration did not complete, but not whether it was cancelled or failed. Nothing is ever written."
        ),
    ] = False


class Producer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling on a hypervisor."""

    node: Annotated[str, _row("Name of this node in all records; the host name when empty.", "--node")] = ""
    interval_seconds: Annotated[Seconds, _row("Sampling interval.", "--interval", ge=0.1, le=3600)] = 10.0
    deadline_ratio: Annotated[float, _row("Part of the interval after which a round is sent with what has arrived.", ge=0.1, le=0.95)] = 0.8
    inventory_seconds: Annotated[Seconds, _row("How often the inventory of an unchanged VM is read and sent again.", ge=10, le=86400)] = (
        300.0
    )
    hung_calls_max: Annotated[
        int,
        _row(
            "Calls to libvirt that may hang at a time on this host; each holds one of libvirtd's workers (20) until its VM recovers. Above 5 other clients of libvirt suffer.",
            ge=1,
            le=15,
        ),
    ] = 3
    probe_maximum_seconds: Annotated[Seconds, _row("Longest pause between attempts to ask a VM that does not answer.", ge=1, le=86400)] = (
        300.0
    )
    kvm_statistics: Annotated[
        bool,
        _row(
            "Also carry what KVM itself counts of each virtual CPU: exits, halt polling, preemptions (metrics of the group kvm).", "--kvm"
        ),
    ] = False
    job_seconds: Annotated[Seconds, _row("How often the running job of a VM is polled.", ge=0.1, le=3600)] = 1.0
    job_discovery_seconds: Annotated[
        Seconds,
        _row(
            "How often each running VM is asked for a job that no event announces, such as a migration that copies disks first, where the files in "
            "/run/libvirt/qemu, which change when a job begins, can't be seen. 0: never, and the files are not looked at.",
            ge=0,
            le=86400,
        ),
    ] = 30.0
    journal_folder: Annotated[str, _row("Folder for events that the broker does not have yet.")] = "/var/lib/virtflow/journal"
    journal_bytes: Annotated[int, _row("Bytes that the journal of events may take on disk.", ge=65_536, le=2**40)] = 67_108_864
    journal_sync: Annotated[
        Literal["always", "second", "never"],
        _row(
            "When events are forced to the disk: before each is sent, once a second, or whenever the system does. A killed process loses none."
        ),
    ] = "second"
    ring_rounds: Annotated[int, _row("Rounds kept in memory while the broker is away; the oldest are dropped.", ge=1, le=10000)] = 60


class Guest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guests' agents, asked by a process of its own (docs/guest-agent.md). Nothing is asked by default."""

    enabled: Annotated[
        bool,
        _row(
            "Ask the guests' agents, in a helper process with a connection that may write; of all VMs, unless some are named.",
            "--guest-agent",
        ),
    ] = False
    names: Annotated[list[str], _row("VMs whose agents are asked, by patterns of their names: web-*. Naming any VM enables asking it.")] = (
        field(default_factory=list)
    )
    uuids: Annotated[list[str], _row("VMs whose agents are asked, by UUID.")] = field(default_factory=list)
    metadata: Annotated[list[str], _row("VMs whose agents are asked: those with metadata of one of these XML namespaces.")] = field(
        default_factory=list
    )
    cycle_seconds: Annotated[Seconds, _row("How often an agent is asked.", ge=1, le=86400)] = 60.0
    timeout_seconds: Annotated[int, _row("How long libvirt waits for an agent's answer.", ge=1, le=60)] = 2
    calls_per_minute: Annotated[
        int, _row("Calls to libvirt that asking may take in any minute on this host; a VM takes about seven a cycle.", ge=1, le=100000)
    ] = 1200
    calls_in_flight: Annotated[int, _row("VMs that are asked at a time on this host, each by one call.", ge=1, le=4)] = 2
    pseudo_filesystems: Annotated[bool, _row("Also show filesystems that are on no disk: tmpfs, proc and the like.")] = False
    container_filesystems: Annotated[
        bool,
        _row("Also show filesystems that are mounted for containers: below kubelet's pods, and containerd's, CRI-O's and Docker's own."),
    ] = False
    balloon_period_seconds: Annotated[
        int,
        _row(
            "Give running VMs that have no statistics period of their balloon this one, by the same process; 0: change nothing.",
            "--set-balloon-period",
            ge=0,
            le=86400,
        ),
    ] = 0
    memory_bytes: Annotated[int, _row("Address space that the helper process may take.", ge=134_217_728, le=2**40)] = 167_772_160
    hang_seconds: Annotated[Seconds, _row("Silence after which the helper process is killed.", ge=1, le=600)] = 10.0
    restart_maximum_seconds: Annotated[Seconds, _row("Longest pause before the helper process is started again.", ge=0.1, le=3600)] = 60.0


class Kafka(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way to the broker, for every client."""

    bootstrap_servers: Annotated[str, _row("Kafka brokers to start from, separated by commas.", "--bootstrap-servers")] = "localhost:9092"
    security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], _row("How to talk to the brokers.")] = (
        "PLAINTEXT"
    )
    sasl_mechanism: Annotated[Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], _row("SASL mechanism.")] = ""
    sasl_username: Annotated[str, _row("SASL user.")] = ""
    sasl_password_file: Annotated[str, _row("File that holds the SASL password and nothing else.")] = ""
    tls_ca_file: Annotated[str, _row("CA certificates the brokers are checked against; the system's when empty.")] = ""
    tls_certificate_file: Annotated[str, _row("Client certificate (PEM).")] = ""
    tls_key_file: Annotated[str, _row("Key of the client certificate (PEM).")] = ""
    tls_key_password_file: Annotated[str, _row("File that holds the key's pass phrase and nothing else, where the key is encrypted.")] = ""
    silence_seconds: Annotated[
        Seconds,
        _row(
            "Silence of the brokers after which a service that reads topics reports at /readyz that it is not ready; 0: never.",
            ge=0,
            le=86400,
        ),
    ] = 10.0
    client: Annotated[dict[str, str], _row("Further librdkafka settings, passed through to every client as they are.")] = field(
        default_factory=dict
    )


class Topics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The topics' names and sizes."""

    prefix: Annotated[
        str,
        Meta(description="Put before every topic's name.", extra={"switch": "--topic-prefix"}, pattern=r"^[a-zA-Z0-9._-]{0,100}$"),
    ] = ""
    partitions: Annotated[int, _row("Partitions of the topics that `topics create` makes.", "--partitions", ge=1, le=10000)] = 6
    replication: Annotated[int, _row("Replicas of the topics that `topics create` makes.", "--replication", ge=1, le=10)] = 1


class Registry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The schema registry, where there is one."""

    url: Annotated[str, _row("URL of a Confluent-compatible schema registry; without it messages carry the schema's fingerprint.")] = ""
    timeout_seconds: Annotated[Seconds, _row("How long the registry may take to answer.", ge=0.1, le=60)] = 5.0
    subjects: Annotated[
        Literal["topic", "record"],
        _row("Subject of a schema: TOPIC-value, which stock tools look for, or the record's full name (virtflow.VmMetrics)."),
    ] = "topic"
    cache_file: Annotated[
        str,
        _row(
            "File that keeps the ids and schemas the registry has told, for starts without it; "
            "registry.json in the service's state directory when empty, where systemd gives it one."
        ),
    ] = ""
    username: Annotated[str, _row("User of the registry (HTTP basic authentication); its password is in password_file.")] = ""
    password_file: Annotated[str, _row("File that holds the registry's password and nothing else.")] = ""
    tls_ca_file: Annotated[str, _row("CA certificates the registry is checked against; the system's when empty.")] = ""


class Processors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stream processing."""

    group: Annotated[str, Meta(description="Consumer group of the processors.", min_length=1)] = "virtflow-processors"
    instance: Annotated[
        str,
        _row("Name of this process in its group, unique and kept over restarts: rebalances then take seconds. The host name when empty."),
    ] = ""
    listen: Annotated[str, _address("Where the processors serve their own /metrics, /healthz and /readyz.")] = "127.0.0.1:9178"
    in_flight: Annotated[int, _row("Snapshots that may wait for the broker's acknowledgement at once.", ge=1, le=10000)] = 64
    migration_silence_seconds: Annotated[
        Seconds, _row("How long a running migration may go unheard of before it is given up with result unknown.", ge=1, le=604800)
    ] = 60.0
    dead_letter_window: Annotated[int, _row("Messages over which the share of undecodable ones is watched.", ge=10, le=1000000)] = 1000
    dead_letter_node_window: Annotated[
        int, _row("Messages of one node over which the share of undecodable ones is watched.", ge=1, le=10000)
    ] = 20
    dead_letter_share: Annotated[
        float,
        _row(
            "Share of undecodable messages in a node's window at which the node counts as failing; processing stops when the messages "
            "of all reach that share in their window and more than that share of the nodes, two at least, is failing.",
            gt=0,
            le=1,
        ),
    ] = 0.5


class Exporter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet's /metrics."""

    listen: Annotated[str, _address("Where /metrics is served.")] = "127.0.0.1:9177"
    read_back_seconds: Annotated[
        Seconds, _row("How much of vm.metrics is read back at start; at least three sampling intervals.", ge=0, le=86400)
    ] = 60.0
    forget_node_seconds: Annotated[Seconds, _row("How long a silent node is shown as down before it is forgotten.", ge=60, le=31536000)] = (
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
    include: Annotated[list[str], _row("Groups or metric names to export, separated by commas; all when empty.", "--include")] = field(
        default_factory=list
    )
    exclude: Annotated[list[str], _row("Groups or metric names to leave out, separated by commas.", "--exclude")] = field(
        default_factory=list
    )
    always_export: Annotated[
        bool,
        _row(
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
        bool, _row("Keep showing a migration's last values after it has ended, until the VM's next one starts.", "--keep-last")
    ] = False
    keep_file: Annotated[str, _row("File in which `virtflow node` keeps the last migrations for --keep-last.")] = (
        "/var/lib/virtflow/migrations.jsonl"
    )
    vm_labels: Annotated[list[str], _row("Labels of every VM's series beside uuid: name, or fields of the inventory.", "--vm-labels")] = (
        field(default_factory=lambda: ["name"])
    )
    label_value_bytes: Annotated[
        int,
        _row(
            "Bytes of a label's value (UTF-8) that are shown; a longer one is cut and ends in a hash of the whole. Set it to your Prometheus' "
            "label_value_length_limit, which otherwise rejects the whole scrape for one long value.",
            ge=64,
            le=65_536,
        ),
    ] = 1_024
    fleet_page: Annotated[
        bool,
        _row(
            "Serve the fleet page at / and the JSON API below /api/v1, and keep the last hour of each VM in memory for them, 2 KiB a VM; "
            "without it / is a page of links.",
            "--fleet-page",
        ),
    ] = True
    targets: Annotated[
        list[str],
        _row(
            "HOST:PORT of the exporters of all shards, the first shard's first, for Prometheus' HTTP service discovery at /api/v1/targets; "
            "this exporter alone when empty.",
            "--targets",
        ),
    ] = field(default_factory=list)
    connections: Annotated[int, _row("HTTP connections that may be open at once.", ge=1, le=100000)] = 256
    request_timeout_seconds: Annotated[
        Seconds, _row("How long a client may take to send a request or take the answer.", ge=0.1, le=600)
    ] = 15.0


class Adapter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Kubernetes API adapter: VMs' metrics for the HorizontalPodAutoscaler (docs/kubernetes.md)."""

    api_listen: Annotated[
        str,
        Meta(
            description="Where the Kubernetes API server reaches the metrics APIs, by TLS.",
            extra={"switch": "--api-listen"},
            pattern=ADDRESS_PATTERN,
        ),
    ] = "127.0.0.1:6443"
    listen: Annotated[str, _address("Where the adapter serves its own /metrics, /healthz and /readyz.")] = "127.0.0.1:9181"
    tls_certificate_file: Annotated[
        str, _row("Certificate of the metrics APIs (PEM), for SERVICE.NAMESPACE.svc; read again when it changes.", "--tls-certificate")
    ] = "/etc/virtflow/tls/tls.crt"
    tls_key_file: Annotated[str, _row("Key of that certificate (PEM).", "--tls-key")] = "/etc/virtflow/tls/tls.key"
    window_seconds: Annotated[
        Seconds,
        _row("Window of rates; where a VM's three intervals are longer, these.", "--window", ge=1, le=3600),
    ] = 60.0
    complete_share: Annotated[
        float,
        _row(
            "Share of the running VMs of a set, pool or namespace that must have a fresh value for the whole to have one; "
            "the others then count as the average of these.",
            gt=0,
            le=1,
        ),
    ] = 0.9
    namespace_field: Annotated[
        Literal["", "title", "project", "project_id", "user", "user_id", "flavor"],
        _row(
            "Field of the inventory whose value is the Kubernetes namespace of a VM that is not KubeVirt's; such VMs count nowhere when empty."
        ),
    ] = ""
    external: Annotated[
        bool,
        _row("Also serve external.metrics.k8s.io, of which a cluster has one provider only; KEDA is one.", "--external"),
    ] = False
    drain_seconds: Annotated[
        Seconds, _row("How long requests are still answered after SIGTERM, until the cluster has noticed.", ge=0, le=60)
    ] = 3.0
    kubernetes_url: Annotated[str, _row("URL of the Kubernetes API server; that of the pod's own cluster when empty.", "--kubernetes")] = ""
    kubernetes_ca_file: Annotated[str, _row("CA certificates the API server is checked against; the system's when empty.")] = (
        "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    )
    kubernetes_token_file: Annotated[str, _row("File that holds the token for the API server; none when empty.")] = (
        "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105, a file's name
    )
    kubernetes_certificate_file: Annotated[str, _row("Client certificate for the API server (PEM).")] = ""
    kubernetes_key_file: Annotated[str, _row("Key of that client certificate (PEM).")] = ""
    connections: Annotated[int, _row("Connections of the metrics APIs that may be open at once.", ge=1, le=100000)] = 256


class History(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The long history: tables on a folder or on S3-compatible storage."""

    path: Annotated[str, _row("Folder or s3://BUCKET/PREFIX that holds the tables.", "--history")] = "/var/lib/virtflow/history"
    s3_endpoint: Annotated[str, _row("URL of an S3-compatible server; Amazon's own when empty.")] = ""
    s3_region: Annotated[str, _row("Region of the bucket.")] = "us-east-1"
    s3_access_key_file: Annotated[str, _row("File that holds the access key and nothing else; the environment's when empty.")] = ""
    s3_secret_key_file: Annotated[str, _row("File that holds the secret key and nothing else; the environment's when empty.")] = ""
    s3_instance_credentials: Annotated[
        bool, _row("Take the keys that the machine's own metadata service gives, where no other ones are set.")
    ] = False
    storage: Annotated[dict[str, str], _row("Further settings of the object store, passed through as they are.")] = field(
        default_factory=dict
    )
    sync: Annotated[
        Literal["commit", "never"],
        _row(
            "Where path is a folder: force files and commits to the disk before they count, or leave that to the system, so that "
            "a power cut may cost the last commits, which the writer reads again while Kafka has them."
        ),
    ] = "commit"
    group: Annotated[str, Meta(description="Consumer group of the writers.", min_length=1)] = "virtflow-history"
    instance: Annotated[
        str, _row("Name of this writer in its group, unique and kept over restarts: it then takes over at once after a crash.")
    ] = ""
    listen: Annotated[str, _address("Where the writer serves its own /metrics, /healthz and /readyz.")] = "127.0.0.1:9179"
    commit_rows: Annotated[int, _row("Records held in memory at most: a commit is made when so many wait.", ge=1, le=1000000)] = 20_000
    commit_seconds: Annotated[Seconds, _row("A commit is made when the oldest record has waited for so long.", ge=0.1, le=3600)] = 5.0
    future_seconds: Annotated[
        Seconds, _row("How far a record's time may be ahead of its arrival; beyond that it is left out and counted.", ge=0, le=31536000)
    ] = 86_400.0
    raw_days: Annotated[int, _row("How long samples are kept.", ge=1, le=36500)] = 30
    hourly_days: Annotated[int, _row("How long hourly rows are kept.", ge=1, le=36500)] = 396
    daily_days: Annotated[int, _row("How long daily rows, migrations and inventory are kept.", ge=1, le=36500)] = 3652
    events_days: Annotated[int, _row("How long events are kept.", ge=1, le=36500)] = 396
    vacuum_hours: Annotated[
        int, _row("How long files that no version names any more are kept for readers that started before.", ge=1, le=8760)
    ] = 24
    maintain_seconds: Annotated[
        Seconds, _row("How often the writer rolls up, compacts and cleans; 0 leaves that to `history compact`.", ge=0, le=86400)
    ] = 600.0
    serve_listen: Annotated[str, _address("Where `history serve` answers Prometheus.")] = "127.0.0.1:9180"
    query_memory_bytes: Annotated[int, _row("Memory a query may take.", "--memory", ge=16_777_216)] = 1_073_741_824
    query_seconds: Annotated[Seconds, _row("How long a query may take.", "--timeout", ge=0.1, le=86400)] = 60.0
    query_rows: Annotated[int, _row("Rows a query may return.", ge=1, le=100000000)] = 1_000_000
    query_bytes: Annotated[int, _row("Bytes a query's answer may have.", ge=65_536)] = 268_435_456
    serve_labels: Annotated[
        dict[str, str], _row("Labels put on every series that `history serve` returns, as a scrape would: job=virtflow.")
    ] = field(default_factory=dict)
    serve_queries: Annotated[int, _row("Queries of one remote_read request; Prometheus asks one.", ge=1, le=1000)] = 16
    serve_series: Annotated[int, _row("Series one remote_read request may touch, over all its queries.", ge=1, le=10000000)] = 20_000
    serve_samples: Annotated[int, _row("Samples one remote_read request may return, over all its queries.", ge=1, le=1000000000)] = (
        20_000_000
    )
    serve_memory_bytes: Annotated[
        int,
        _row(
            "Memory one request may take in a process that reads for `history serve`, of which there are two; a sample takes about 300 bytes.",
            ge=16_777_216,
        ),
    ] = 2_147_483_648
    serve_prometheus: Annotated[
        str,
        _row(
            "Program of a Prometheus that evaluates PromQL for `history serve`, started when the first query comes; nothing evaluates it when empty.",
            "--prometheus",
        ),
    ] = "prometheus"
    tenant_header: Annotated[
        str,
        _row(
            "HTTP header of `history serve` that names the project whose VMs a request may see; whoever can reach the server can send it, so a proxy in front must set it.",
            "--tenant-header",
        ),
    ] = ""
    tenant_tokens_file: Annotated[
        str,
        _row(
            "File of lines `TOKEN PROJECT` for `history serve`: a request with `Authorization: Bearer TOKEN` sees the VMs of that project, all others are refused."
        ),
    ] = ""
    serve_days: Annotated[int, _row("Longest range of one remote_read query.", ge=1, le=36500)] = 3660


class Web(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP endpoints of all services: TLS, passwords, tokens, and who may see what (docs/secure.md)."""

    config_file: Annotated[
        str,
        _row(
            "Web configuration file in the format of Prometheus' exporter-toolkit: TLS, client certificates, passwords, headers, rate limit. "
            "Plain HTTP without passwords when empty.",
            "--web-config",
        ),
    ] = ""
    tokens_file: Annotated[
        str, _row("File of lines `TOKEN NAME`: a request with `Authorization: Bearer TOKEN` is one of NAME; all others need a password.")
    ] = ""
    rights: Annotated[
        dict[str, str],
        _row(
            "Rights of each user, token or client certificate by its name, separated by spaces: metrics, history, write. "
            "Who is not named then has none. When empty, everyone who is let in has metrics and history."
        ),
    ] = field(default_factory=dict)


class Simulate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Synthetic hypervisors."""

    nodes: Annotated[int, _row("Nodes to simulate.", "--nodes", ge=1, le=10000)] = 2
    vms: Annotated[int, _row("VMs on each node.", "--vms", ge=0, le=100000)] = 20
    migrations: Annotated[int, _row("VMs that migrate from node to node again and again.", "--migrations", ge=0, le=10000)] = 2
    seed: Annotated[int, _row("Seed: the same one gives the same fleet.", "--seed")] = 1
    guests: Annotated[bool, _row("The agents in the VMs' guests tell what only the guest knows.", "--guests")] = False


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What services write to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], _row("Least severity that is written.", "--log-level")] = "info"
    format: Annotated[Literal["text", "json"], _row("Lines for people, or JSON objects for programs.", "--log-format")] = "text"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All sections."""

    libvirt: Libvirt = field(default_factory=Libvirt)
    producer: Producer = field(default_factory=Producer)
    guest: Guest = field(default_factory=Guest)
    kafka: Kafka = field(default_factory=Kafka)
    topics: Topics = field(default_factory=Topics)
    registry: Registry = field(default_factory=Registry)
    processors: Processors = field(default_factory=Processors)
    exporter: Exporter = field(default_factory=Exporter)
    adapter: Adapter = field(default_factory=Adapter)
    history: History = field(default_factory=History)
    web: Web = field(default_factory=Web)
    simulate: Simulate = field(default_factory=Simulate)
    log: Log = field(default_factory=Log)
