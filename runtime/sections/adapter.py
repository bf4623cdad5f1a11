"""Settings of the Kubernetes API adapter."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from virtflow.runtime.sections.rows import ADDRESS_PATTERN, Seconds, address, row, server_url


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
    listen: Annotated[str, address("Where the adapter serves its own /metrics, /healthz and /readyz.")] = "127.0.0.1:9181"
    tls_certificate_file: Annotated[
        str, row("Certificate of the metrics APIs (PEM), for SERVICE.NAMESPACE.svc; read again when it changes.", "--tls-certificate")
    ] = "/etc/virtflow/tls/tls.crt"
    tls_key_file: Annotated[str, row("Key of that certificate (PEM).", "--tls-key")] = "/etc/virtflow/tls/tls.key"
    window_seconds: Annotated[
        Seconds,
        row("Window of rates; where a VM's three intervals are longer, these.", "--window", ge=1, le=3600),
    ] = 60.0
    complete_share: Annotated[
        float,
        row(
            "Share of the running VMs of a set, pool or namespace that must have a fresh value for the whole to have one; "
            "the others then count as the average of these.",
            gt=0,
            le=1,
        ),
    ] = 0.9
    prometheus_url: Annotated[
        str,
        server_url(
            "URL of a Prometheus that scrapes the exporters: values come from it, and Kafka is not read. Kafka's topics are read when empty.",
            "http://prometheus:9090",
            "--prometheus-url",
        ),
    ] = ""
    prometheus_ca_file: Annotated[str, row("CA certificates that Prometheus is checked against; the system's when empty.")] = ""
    prometheus_token_file: Annotated[str, row("File that holds the token for Prometheus; none when empty.")] = ""
    namespace_field: Annotated[
        Literal["", "title", "project", "project_id", "user", "user_id", "flavor"],
        row(
            "Field of the inventory whose value is the Kubernetes namespace of a VM that is not KubeVirt's; such VMs count nowhere when empty."
        ),
    ] = ""
    external: Annotated[
        bool,
        row("Also serve external.metrics.k8s.io, of which a cluster has one provider only; KEDA is one.", "--external"),
    ] = False
    drain_seconds: Annotated[
        Seconds, row("How long requests are still answered after SIGTERM, until the cluster has noticed.", ge=0, le=60)
    ] = 3.0
    kubernetes_url: Annotated[
        str,
        server_url(
            "URL of the Kubernetes API server; that of the pod's own cluster when empty.", "https://kubernetes.default.svc", "--kubernetes"
        ),
    ] = ""
    kubernetes_ca_file: Annotated[str, row("CA certificates the API server is checked against; the system's when empty.")] = (
        "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    )
    kubernetes_token_file: Annotated[str, row("File that holds the token for the API server; none when empty.")] = (
        "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105, a file's name
    )
    kubernetes_certificate_file: Annotated[str, row("Client certificate for the API server (PEM).")] = ""
    kubernetes_key_file: Annotated[str, row("Key of that client certificate (PEM).")] = ""
    connections: Annotated[int, row("Connections of the metrics APIs that may be open at once.", ge=1, le=100000)] = 256
