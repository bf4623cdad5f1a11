"""The documents that say what the APIs offer. They come from tables alone, so they are answered whatever is away. Pure.

A cluster whose aggregated API does not answer its discovery can't delete any namespace until it does.
Sources: apimachinery's ``APIGroup``, ``APIResourceList`` and ``Status``; an empty OpenAPI document keeps the API server from logging errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from virtflow.adapter.requests import CUSTOM, EXTERNAL, KINDS, NAMESPACES, VERSIONS, RefusedError
from virtflow.schemas.catalogue.scaling import SCALING_METRICS

Json = dict[str, Any]

GROUPS: Final = (CUSTOM, EXTERNAL)


def resources(group: str, version: str) -> Json:
    """The ``APIResourceList`` of a version: every metric of every kind of object."""
    entries = _external() if group == EXTERNAL else _custom()
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{version}", "resources": list(entries)}


def group_of(group: str) -> Json:
    """The ``APIGroup``."""
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in VERSIONS[group]]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": versions, "preferredVersion": versions[0]}


def documents(groups: Iterable[str]) -> dict[str, bytes]:
    """Each document of these groups, encoded, by its path."""
    found: dict[str, Json] = {
        "/openapi/v2": {"swagger": "2.0", "info": {"title": "virtflow adapter", "version": "v1"}, "paths": {}},
        "/openapi/v3": {"paths": {}},
    }
    for group in groups:
        found[f"/apis/{group}"] = group_of(group)
        for version in VERSIONS[group]:
            found[f"/apis/{group}/{version}"] = resources(group, version)
    return {path: msgspec.json.encode(document) for path, document in found.items()}


def status_of(error: RefusedError) -> bytes:
    """The ``Status`` that tells a refusal."""
    return msgspec.json.encode(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(error),
            "reason": error.reason.value,
            "code": error.reason.code,
        }
    )


def _custom() -> Iterable[Json]:
    for kind in KINDS.values():
        for metric in SCALING_METRICS:
            yield _resource(f"{kind.name}/{metric.name}", "MetricValueList", namespaced=kind is not NAMESPACES)


def _external() -> Iterable[Json]:
    return (_resource(metric.name, "ExternalMetricValueList", namespaced=True) for metric in SCALING_METRICS)


def _resource(name: str, kind: str, *, namespaced: bool) -> Json:
    return {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get"]}
