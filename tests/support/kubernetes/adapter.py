"""An adapter as its users run it: the installed command in a process of its own, registered with a real API server by the shipped manifest."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml

from tests.support.broker import free_ports
from tests.support.exporter_process import ExporterProcess
from tests.support.kubernetes.lab import KubernetesLab

MANIFEST: Final = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes" / "adapter.yaml"
ACCOUNT: Final = "system:serviceaccount:virtflow:virtflow-adapter"
GROUPS: Final = ("system:serviceaccounts", "system:serviceaccounts:virtflow", "system:authenticated")
HOST: Final = "virtflow-adapter.virtflow.svc"
LEFT_OUT: Final = frozenset({"Deployment", "PodDisruptionBudget"})
"""Of the manifest: what needs nodes."""


def manifest(lab: KubernetesLab, port: int) -> list[dict[str, Any]]:
    """The shipped manifest with the CA put in; its Service leads to this machine's loopback, where the adapter listens on ``port``."""
    authority = base64.b64encode(lab.adapters.own.certificate.read_bytes()).decode()
    found = [one for one in yaml.safe_load_all(MANIFEST.read_text().replace("CA_BUNDLE", authority)) if one["kind"] not in LEFT_OUT]
    for one in found:
        if one["kind"] == "Service":
            one["spec"] = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
        if one["kind"] == "APIService":
            one["spec"]["service"]["port"] = port
    return found


def external(document: dict[str, Any]) -> dict[str, Any]:
    """The APIService of external metrics, made of one of the custom ones."""
    group, version = "external.metrics.k8s.io", "v1beta1"
    return {**document, "metadata": {"name": f"{version}.{group}"}, "spec": {**document["spec"], "group": group, "version": version}}


class AdapterProcess(ExporterProcess):
    """``with AdapterProcess(...) as adapter`` starts it and waits until its own pages answer; it uses the manifest's service account."""

    command: ClassVar[str] = "adapter"

    def __init__(self, folder: Path, brokers: str, prefix: str, lab: KubernetesLab, settings: Mapping[str, object] | None = None) -> None:
        """Takes ports; nothing runs before ``start``."""
        (self.api_port,) = free_ports(1)
        own = lab.adapters.signed("virtflow-adapter", hosts=(f"DNS:{HOST}", "DNS:localhost", "IP:127.0.0.1"))
        account = lab.user(ACCOUNT, *GROUPS)
        given: dict[str, object] = {
            "ADAPTER_API_LISTEN": f"127.0.0.1:{self.api_port}",
            "ADAPTER_TLS_CERTIFICATE_FILE": own.certificate,
            "ADAPTER_TLS_KEY_FILE": own.key,
            "ADAPTER_KUBERNETES_URL": lab.url,
            "ADAPTER_KUBERNETES_CA_FILE": lab.authority.own.certificate,
            "ADAPTER_KUBERNETES_TOKEN_FILE": "",
            "ADAPTER_KUBERNETES_CERTIFICATE_FILE": account.certificate,
            "ADAPTER_KUBERNETES_KEY_FILE": account.key,
            "ADAPTER_DRAIN_SECONDS": 0,
        }
        super().__init__(folder, brokers, prefix, {**given, **(settings or {})})
