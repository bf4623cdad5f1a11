"""What paths ask for, and what access is decided by."""

from __future__ import annotations

import pytest

from virtflow.adapter.requests import CUSTOM, EXTERNAL, Attributes, Reason, RefusedError, attributes_of, query_of

SETS = "virtualmachineinstancereplicasets.kubevirt.io"


def parts(path: str) -> list[str]:
    return path.split("/")


@pytest.mark.parametrize(
    ("path", "kind", "namespace", "name"),
    [
        ("namespaces/shop/pods/*/vm_cpu_cores", "Pod", "shop", "*"),
        ("namespaces/shop/pods/virt-launcher-1/vm_cpu_cores", "Pod", "shop", "virt-launcher-1"),
        ("namespaces/shop/virtualmachineinstances.kubevirt.io/web-1/vm_cpu_cores", "VirtualMachineInstance", "shop", "web-1"),
        (f"namespaces/shop/{SETS}/web/vm_cpu_cores", "VirtualMachineInstanceReplicaSet", "shop", "web"),
        ("namespaces/shop/virtualmachinepools.pool.kubevirt.io/web/vm_cpu_cores", "VirtualMachinePool", "shop", "web"),
        ("namespaces/shop/metrics/vm_cpu_cores", "Namespace", "shop", "shop"),
        ("namespaces/shop/vm_cpu_cores", "Namespace", "shop", "shop"),
    ],
)
def test_custom_paths(path: str, kind: str, namespace: str, name: str) -> None:
    query = query_of(CUSTOM, "v1beta2", parts(path), {})
    assert query.kind is not None
    assert (query.kind.kind, query.namespace, query.name, query.metric.name) == (kind, namespace, name, "vm_cpu_cores")


def test_selectors_go_where_they_belong() -> None:
    """Those of objects and those of series; an external metric has series alone."""
    given = {"labelSelector": "app=web", "metricLabelSelector": "device=vda"}
    custom = query_of(CUSTOM, "v1beta1", parts("namespaces/shop/pods/*/vm_cpu_cores"), given)
    external = query_of(EXTERNAL, "v1beta1", parts("namespaces/shop/vm_cpu_cores"), given)
    assert (custom.labels.text, custom.series.text) == ("app=web", "device=vda")
    assert (external.kind, external.series.text) == (None, "app=web")


@pytest.mark.parametrize(
    ("group", "path", "reason"),
    [
        (CUSTOM, "namespaces/shop/pods/*/no_such_metric", Reason.NOT_FOUND),
        (CUSTOM, "namespaces/shop/deployments.apps/*/vm_cpu_cores", Reason.NOT_FOUND),
        (CUSTOM, "namespaces/shop/namespaces/shop/vm_cpu_cores", Reason.NOT_FOUND),
        (CUSTOM, "namespaces/*/pods/*/vm_cpu_cores", Reason.BAD_REQUEST),
        (CUSTOM, "namespaces/*/metrics/vm_cpu_cores", Reason.BAD_REQUEST),
        (CUSTOM, "namespaces/shop/pods//vm_cpu_cores", Reason.NOT_FOUND),
        (CUSTOM, "pods/*/vm_cpu_cores", Reason.NOT_FOUND),
        (CUSTOM, "namespaces/shop", Reason.NOT_FOUND),
        (EXTERNAL, "namespaces/shop/pods/*/vm_cpu_cores", Reason.NOT_FOUND),
        (EXTERNAL, "namespaces/*/vm_cpu_cores", Reason.BAD_REQUEST),
    ],
)
def test_other_paths_are_refused(group: str, path: str, reason: Reason) -> None:
    with pytest.raises(RefusedError) as refused:
        query_of(group, "v1beta1", parts(path), {})
    assert refused.value.reason is reason


def test_a_bad_selector_is_refused() -> None:
    with pytest.raises(RefusedError, match="metricLabelSelector"):
        query_of(CUSTOM, "v1beta2", parts("namespaces/shop/pods/*/vm_cpu_cores"), {"metricLabelSelector": "a in"})


@pytest.mark.parametrize(
    ("group", "path", "wanted"),
    [
        (CUSTOM, "namespaces/shop/pods/*/vm_cpu_cores", ("get", "shop", "pods", "vm_cpu_cores", "*")),
        (CUSTOM, "namespaces/shop/metrics/vm_cpu_cores", ("get", "shop", "metrics", "", "vm_cpu_cores")),
        (EXTERNAL, "namespaces/shop/vm_cpu_cores", ("list", "shop", "vm_cpu_cores", "", "")),
        (CUSTOM, "namespaces/shop", ("get", "shop", "namespaces", "", "shop")),
    ],
)
def test_access_is_asked_for_as_the_api_server_does(group: str, path: str, wanted: tuple[str, ...]) -> None:
    verb, namespace, resource, subresource, name = wanted
    assert attributes_of(group, "v1beta1", parts(path)) == Attributes(group, "v1beta1", verb, namespace, resource, subresource, name)
