"""The chart on a real API server: it takes every object that is rendered, and Helm installs, upgrades and uninstalls the release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.kubernetes.crds import published
from tests.support.kubernetes.lab import KubernetesLab
from tests.support.kubernetes.manifests import CHART, MANIFESTS, VALUE_SETS, named, objects
from tools.helm.program import run

NAMESPACE: Final = "virtflow"
SECONDS: Final = 60.0
LISTED: Final = {
    "/apis/apps/v1/namespaces/virtflow/": ("daemonsets", "deployments", "statefulsets"),
    "/apis/batch/v1/namespaces/virtflow/": ("jobs",),
    "/apis/policy/v1/namespaces/virtflow/": ("poddisruptionbudgets",),
    "/apis/autoscaling/v2/namespaces/virtflow/": ("horizontalpodautoscalers",),
    "/apis/networking.k8s.io/v1/namespaces/virtflow/": ("networkpolicies",),
    "/apis/monitoring.coreos.com/v1/namespaces/virtflow/": ("servicemonitors", "prometheusrules"),
    "/apis/cert-manager.io/v1/namespaces/virtflow/": ("certificates", "issuers"),
    "/api/v1/namespaces/virtflow/": ("services", "serviceaccounts", "persistentvolumeclaims"),
    "/apis/rbac.authorization.k8s.io/v1/": ("clusterroles", "clusterrolebindings"),
    "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/": ("rolebindings",),
    "/apis/apiregistration.k8s.io/v1/": ("apiservices",),
}
"""Where the release's objects are."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesLab]:
    """A cluster with the definitions of the Prometheus Operator and cert-manager, and the release's namespace."""
    with KubernetesLab(tmp_path_factory.mktemp("kubernetes")) as running:
        definitions = published()
        running.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": definitions}))
        served = [f"/apis/{one['spec']['group']}/v1/{one['spec']['names']['plural']}" for one in definitions]
        running.wait_until(lambda: all(running.status(path) == 200 for path in served), SECONDS, "the definitions are served")
        running.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield running


def tried(lab: KubernetesLab, text: str) -> list[str]:
    """What the API server would make of each object; fails where it refuses one, or does not know a field."""
    return lab.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text).splitlines()


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_every_object_is_taken(lab: KubernetesLab, values: Path, tmp_path: Path) -> None:
    """By a dry run with strict validation."""
    done = run("template", "virtflow", str(CHART), "--namespace", NAMESPACE, "--values", str(values), home=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = tried(lab, done.stdout)
    assert len(answers) == len(objects(done.stdout)) > 0
    assert all("created (server dry run)" in answer for answer in answers)


@pytest.mark.parametrize("file", sorted(MANIFESTS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_plain_manifest_is_taken(lab: KubernetesLab, file: Path) -> None:
    """The adapter's only with a certificate in the place that waits for one."""
    text = file.read_text()
    if "CA_BUNDLE" in text:
        with pytest.raises(AssertionError, match="illegal base64"):
            tried(lab, text)
    assert tried(lab, text.replace("caBundle: CA_BUNDLE", 'caBundle: "QUJD"'))


def test_a_wrong_field_is_refused(lab: KubernetesLab) -> None:
    """The dry run is not blind, for the kinds of others neither."""
    for kind, spec in (("ServiceMonitor", {"selector": {}, "endpoints": [{"honourLabels": True}]}), ("PrometheusRule", {"group": []})):
        wrong = {"apiVersion": "monitoring.coreos.com/v1", "kind": kind, "metadata": {"name": "a", "namespace": NAMESPACE}, "spec": spec}
        with pytest.raises(AssertionError, match="unknown field"):
            tried(lab, yaml.safe_dump(wrong))


def present(lab: KubernetesLab, instance: str = "virtflow") -> dict[str, set[str]]:
    """The release's objects in the cluster, names by resource."""
    query = f"?labelSelector=app.kubernetes.io/instance%3D{instance}"
    found = {(path, name): lab.get(f"{path}{name}{query}")["items"] for path, names in LISTED.items() for name in names}
    return {name: {one["metadata"]["name"] for one in items} for (_, name), items in found.items() if items}


def spec(lab: KubernetesLab, resource: str, name: str) -> dict[str, Any]:
    """The specification of a workload."""
    found: dict[str, Any] = lab.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/{resource}/{name}")["spec"]
    return found


def test_each_shards_pod_has_its_number(lab: KubernetesLab, tmp_path: Path) -> None:
    """By Kubernetes' own controller: pods are numbered from 1, and the label that the setting takes has that number."""
    values = ("--set", "kafka.bootstrapServers=kafka:9092", "--set", "exporter.shards=3", "--set", "fullnameOverride=sharded")
    done = run("template", "sharded", str(CHART), "--namespace", NAMESPACE, *values, home=tmp_path)
    lab.kubectl(
        "apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump(named(objects(done.stdout), "StatefulSet", "sharded-exporter"))
    )
    lab.start_controllers("statefulset-controller")
    path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component%3Dexporter"
    lab.wait_until(lambda: len(lab.get(path)["items"]) == 3, SECONDS, "a pod for each shard", "kube-controller-manager")
    found = {pod["metadata"]["name"]: pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] for pod in lab.get(path)["items"]}
    assert found == {f"sharded-exporter-{number}": str(number) for number in (1, 2, 3)}


def test_install_upgrade_uninstall(lab: KubernetesLab, tmp_path: Path) -> None:
    """A release becomes another one, and leaves nothing behind but the history."""

    def helm(*words: str) -> str:
        done = run(*words, "--namespace", NAMESPACE, home=tmp_path, kubeconfig=lab.kubeconfig())
        assert done.returncode == 0, done.stderr
        return done.stdout

    kubevirt, libvirt = (str(CHART / "ci" / f"{name}.yaml") for name in ("kubevirt", "libvirt"))
    notes = helm("install", "virtflow", str(CHART), "--values", kubevirt)
    assert "kubectl get --raw /apis/custom.metrics.k8s.io/v1beta2" in notes
    installed = present(lab)
    assert installed["daemonsets"] == {"virtflow-producer"}
    assert installed["deployments"] == installed["poddisruptionbudgets"] == installed["certificates"] == {"virtflow-adapter"}
    assert installed["apiservices"] == {"v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"}
    (job,) = installed["jobs"]

    # With an API registered that nobody answers: the adapter's pods do not run here.
    helm(
        "upgrade",
        "virtflow",
        str(CHART),
        "--values",
        kubevirt,
        "--set",
        "exporter.shards=4,history.enabled=true,settings.topics.partitions=24",
    )
    assert spec(lab, "statefulsets", "virtflow-exporter")["replicas"] == 4
    assert present(lab)["persistentvolumeclaims"] == {"virtflow-history"}
    assert present(lab)["jobs"] != {job}, "a Job of other settings has another name"

    helm("upgrade", "virtflow", str(CHART), "--values", libvirt)
    upgraded = present(lab)
    assert not {"daemonsets", "apiservices", "clusterroles", "rolebindings", "certificates", "jobs"} & set(upgraded)
    assert upgraded["statefulsets"] == {"virtflow-processors", "virtflow-exporter", "virtflow-history"}
    assert upgraded["deployments"] == {"virtflow-history-server"}
    assert upgraded["horizontalpodautoscalers"] == {"virtflow-processors"}
    assert upgraded["prometheusrules"] == {"virtflow-rules"}

    helm("rollback", "virtflow", "1")
    assert present(lab)["daemonsets"] == {"virtflow-producer"}
    helm("uninstall", "virtflow")
    assert present(lab) == {"persistentvolumeclaims": {"virtflow-history"}}
    helm("install", "virtflow", str(CHART), "--values", kubevirt, "--set", "history.enabled=true", "--take-ownership")
    helm("uninstall", "virtflow")
