"""What a test asks of rendered manifests: their objects, containers and settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[3]
CHART: Final = ROOT / "deploy" / "helm" / "virtflow"
MANIFESTS: Final = ROOT / "deploy" / "kubernetes"
VALUE_SETS: Final = sorted((CHART / "ci").glob("*.yaml"))
"""Values as users have them; each must lint, render and be taken by an API server."""
WORKLOADS: Final = frozenset({"DaemonSet", "Deployment", "StatefulSet", "Job"})
ELSEWHERE: Final = frozenset({"ServiceMonitor", "PrometheusRule", "Certificate", "Issuer"})
"""Kinds that the Prometheus Operator and cert-manager declare."""

Object = dict[str, Any]


def objects(text: str) -> list[Object]:
    """The objects of a manifest, without empty documents."""
    return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]


def named(found: Iterable[Object], kind: str, name: str) -> Object:
    """The one object of a kind and name."""
    (one,) = [one for one in found if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return one


def pods(found: Iterable[Object]) -> Iterator[tuple[Object, Object]]:
    """Every workload and the specification of its pods."""
    for one in found:
        if one["kind"] in WORKLOADS:
            yield one, one["spec"]["template"]["spec"]


def containers(found: Iterable[Object]) -> Iterator[tuple[Object, Object]]:
    """Every workload and each container that runs virtflow in it."""
    for workload, pod in pods(found):
        for container in pod["containers"]:
            yield workload, container


def settings(container: Object) -> dict[str, str]:
    """The container's environment as far as it is virtflow's; what Kubernetes puts in stands as ``$(FIELD)``."""
    given: dict[str, str] = {}
    for one in container["env"]:
        assert one["name"] not in given, f"{one['name']} is there twice"
        given[one["name"]] = one["value"] if "value" in one else f"$({one['valueFrom']['fieldRef']['fieldPath']})"
    return {name: value for name, value in given.items() if name.startswith("VIRTFLOW_")}
