"""What a request to one of the metrics APIs asks for, from its path and query. Pure.

Sources: the paths of ``custom-metrics-apiserver``, and those that the HorizontalPodAutoscaler's clients send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from virtflow.adapter.objects import Resource
from virtflow.adapter.selectors import EVERYTHING, Selector, SelectorError, selector_of
from virtflow.schemas.catalogue.scaling import BY_SCALING_NAME, ScalingMetric
from virtflow.schemas.errors import InputError

CUSTOM: Final = "custom.metrics.k8s.io"
EXTERNAL: Final = "external.metrics.k8s.io"
VERSIONS: Final = {CUSTOM: ("v1beta2", "v1beta1"), EXTERNAL: ("v1beta1",)}
"""The versions of each group, the preferred one first."""
ALL: Final = "*"
"""In place of an object's name: all objects that the selector matches."""


class Reason(StrEnum):
    """Why a request has no answer, as the Kubernetes API names it; each with its HTTP status."""

    BAD_REQUEST = "BadRequest"
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"
    NOT_FOUND = "NotFound"
    UNAVAILABLE = "ServiceUnavailable"

    @property
    def code(self) -> int:
        """The HTTP status."""
        return _CODES[self]


_CODES: Final = {
    Reason.BAD_REQUEST: 400,
    Reason.UNAUTHORIZED: 401,
    Reason.FORBIDDEN: 403,
    Reason.NOT_FOUND: 404,
    Reason.UNAVAILABLE: 503,
}


class RefusedError(InputError):
    """A request without an answer."""

    def __init__(self, reason: Reason, message: str) -> None:
        """``message`` is for whoever asked."""
        super().__init__(message)
        self.reason = reason


class Kind(Struct, frozen=True):
    """A kind of object that metrics are about: its API group, version and kind; ``watched`` is None for namespaces."""

    name: str
    api_version: str
    kind: str
    watched: Resource | None


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("pods", "v1", "Pod", Resource.PODS),
        Kind("virtualmachineinstances.kubevirt.io", "kubevirt.io/v1", "VirtualMachineInstance", Resource.INSTANCES),
        Kind("virtualmachineinstancereplicasets.kubevirt.io", "kubevirt.io/v1", "VirtualMachineInstanceReplicaSet", Resource.SETS),
        Kind("virtualmachinepools.pool.kubevirt.io", "pool.kubevirt.io/v1beta1", "VirtualMachinePool", Resource.POOLS),
        Kind("namespaces", "v1", "Namespace", None),
    )
}
"""The kinds by the names of their resources, with their groups."""
NAMESPACES: Final = KINDS["namespaces"]
WITHIN: Final = frozenset(name for name, kind in KINDS.items() if kind.watched is not None)
"""The kinds whose objects are in a namespace."""


class Query(Struct, frozen=True):
    """A request for values. ``kind`` is None for an external metric; ``name`` is ``ALL`` for a list."""

    version: str
    namespace: str
    metric: ScalingMetric
    kind: Kind | None = None
    name: str = ""
    labels: Selector = EVERYTHING
    series: Selector = EVERYTHING


class Attributes(Struct, frozen=True):
    """What is asked for, in the words that access is decided by. Source: apiserver's ``RequestInfoFactory``."""

    group: str
    version: str
    verb: str
    namespace: str
    resource: str
    subresource: str
    name: str


def query_of(group: str, version: str, parts: Sequence[str], parameters: Mapping[str, str]) -> Query:
    """The query of a path's parts below its group and version; raises ``RefusedError``."""
    labels = _selector(parameters, "labelSelector")
    match list(parts):
        case ["namespaces", namespace, metric] if group == EXTERNAL:
            return Query(version, _one(namespace), _metric(metric), series=labels)
        case ["namespaces", namespace, "metrics", metric] | ["namespaces", namespace, metric] if group == CUSTOM:
            return Query(version, _one(namespace), _metric(metric), NAMESPACES, namespace, series=_series(parameters))
        case ["namespaces", namespace, resource, name, metric] if group == CUSTOM and resource in WITHIN and name:
            return Query(version, _one(namespace), _metric(metric), KINDS[resource], name, labels, _series(parameters))
    raise RefusedError(Reason.NOT_FOUND, f"there are no metrics at {'/'.join(parts)[:200]!r}")


def attributes_of(group: str, version: str, parts: Sequence[str]) -> Attributes:
    """The attributes of a path's parts below its group and version."""
    namespace, rest = "", list(parts)
    if len(rest) > 1 and rest[0] == "namespaces":
        namespace = rest[1]
        rest = rest[2:] if len(rest) > 2 else rest  # noqa: PLR2004, behind the namespace's name
    resource, name, subresource = (*rest, "", "", "")[:3]
    return Attributes(group, version, "get" if name else "list", namespace, resource, subresource, name)


def _metric(name: str) -> ScalingMetric:
    if name not in BY_SCALING_NAME:
        raise RefusedError(Reason.NOT_FOUND, f"there is no metric {name[:200]!r}; docs/kubernetes-api.md lists them")
    return BY_SCALING_NAME[name]


def _one(namespace: str) -> str:
    if namespace in {"", ALL}:
        raise RefusedError(Reason.BAD_REQUEST, "metrics are asked for in one namespace")
    return namespace


def _series(parameters: Mapping[str, str]) -> Selector:
    return _selector(parameters, "metricLabelSelector")


def _selector(parameters: Mapping[str, str], name: str) -> Selector:
    try:
        return selector_of(parameters.get(name, ""))
    except SelectorError as error:
        raise RefusedError(Reason.BAD_REQUEST, f"{name}: {error}") from error
