"""The chart by Helm itself: it lints, renders what Kubernetes and virtflow know, and refuses bad values with words that help."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.command_line import parse_command_line
from tests.support.kubernetes.manifests import CHART, ROOT, VALUE_SETS, containers, named, objects, settings
from tests.support.kubernetes.validator import RELEASES, complaints
from tools.helm.program import run
from virtflow.runtime.config_files import SECTIONS
from virtflow.runtime.configuration import load, rows

BROKER: Final = ("--set", "kafka.bootstrapServers=kafka:9092")
BUNDLE: Final = "adapter.tls.caBundle=QUJD"
BAD: Final = {
    "an unknown value": (["processor.replicas=3"], "additional properties 'processor' not allowed"),
    "an unknown value within": (["exporter.shard=3"], "at '/exporter': additional properties 'shard' not allowed"),
    "no shards": (["exporter.shards=0"], "at '/exporter/shards': minimum: got 0, want 1"),
    "an unknown setting": (["settings.exporter.colour=red"], "at '/settings/exporter': additional properties 'colour' not allowed"),
    "a setting out of its bounds": (["settings.history.raw_days=0"], "at '/settings/history/raw_days': minimum: got 0, want 1"),
    "a setting that the chart decides": (["settings.kafka.bootstrap_servers=x"], "additional properties 'bootstrap_servers' not allowed"),
    "another mechanism": (["kafka.sasl.mechanism=GSSAPI"], "at '/kafka/sasl/mechanism': value must be one of"),
    "no brokers": (["kafka.bootstrapServers="], "kafka.bootstrapServers is missing: name your Kafka's brokers"),
    "a user without a password": (["kafka.sasl.mechanism=PLAIN", "kafka.sasl.username=a"], "it needs kafka.sasl.username, and kafka.sasl.password.secret"),
    "a user without a mechanism": (["kafka.sasl.username=a"], "set kafka.sasl.mechanism to PLAIN"),
    "a certificate without TLS": (["kafka.tls.ca.secret=a"], "set kafka.tls.enabled to true"),
    "two ways to a certificate": (["adapter.enabled=true", BUNDLE, "adapter.tls.certManager.enabled=true"], "exclude each other"),
    "no way to a certificate": (["adapter.enabled=true"], "adapter.enabled needs a certificate"),
    "a certificate that is no base64": (["adapter.enabled=true", "adapter.tls.caBundle=-----BEGIN"], "at '/adapter/tls/caBundle'"),
    "writers without a shared volume": (["history.enabled=true", "history.writer.replicas=2"], "several writers need history.s3.url"),
    "a range upside down": (["processors.autoscaling.enabled=true", "processors.autoscaling.maxReplicas=1"], "is less than minReplicas"),
    "root beside libvirt": (["producer.libvirt.runAsUser=0"], "at '/producer/libvirt/runAsUser': minimum: got 0, want 1"),
}  # fmt: skip
"""Values by what is wrong with them, and what Helm must say."""

PAGE: Final = re.findall(r"<<'EOF'\n(.*?)\nEOF\n", (ROOT / "docs" / "helm.md").read_text(), re.DOTALL)
"""Values of docs/helm.md."""


def each_set() -> pytest.MarkDecorator:
    """The test once for each set of values."""
    return pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)


def template(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What ``helm template`` answers."""
    return run("template", "virtflow", str(CHART), "--namespace", "virtflow", *words, home=home)


def rendered(home: Path, *words: str) -> list[dict[str, Any]]:
    """The objects of a release with these values."""
    done = template(home, *words)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


@each_set()
def test_lints(values: Path, tmp_path: Path) -> None:
    """Without a warning."""
    done = run("lint", "--strict", str(CHART), "--values", str(values), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


@each_set()
def test_renders_settings_that_parts_read(values: Path, tmp_path: Path) -> None:
    """Every VIRTFLOW_ variable of every container is a setting of its part, and virtflow takes the value."""
    found = list(containers(rendered(tmp_path, "--values", str(values))))
    assert found
    for workload, container in found:
        part = container["args"][0]
        known = {row.variable for row in rows() if row.section in SECTIONS[part]}
        given = settings(container)
        assert set(given) - known == set(), workload["metadata"]["name"]
        assert parse_command_line(container["args"]).startswith(f"virtflow {part}")
        load(None, {name: value.replace("$(SHARD)", "1") for name, value in given.items()})


@each_set()
def test_files_of_settings_are_mounted(values: Path, tmp_path: Path) -> None:
    """A setting that names a file names one below a mount, and each mount has its volume."""
    for workload, container in containers(rendered(tmp_path, "--values", str(values))):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        files = [value for name, value in settings(container).items() if name.endswith("_FILE")]
        assert [file for file in files if str(Path(file).parent) not in mounts] == []
        assert set(mounts.values()) == {volume["name"] for volume in workload["spec"]["template"]["spec"]["volumes"]}


@each_set()
@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_knows_every_field(values: Path, release: str, tmp_path: Path) -> None:
    """In the oldest and the newest release that the chart is for."""
    assert complaints(rendered(tmp_path, "--values", str(values)), release, tmp_path) == ""


def test_the_validator_is_not_blind(tmp_path: Path) -> None:
    """It finds a field that Kubernetes does not have."""
    found = rendered(tmp_path, *BROKER)
    named(found, "StatefulSet", "virtflow-exporter")["spec"]["replica"] = 1
    assert "replica" in complaints(found, RELEASES[-1], tmp_path)


@pytest.mark.parametrize("wrong", BAD)
def test_bad_values_are_refused(wrong: str, tmp_path: Path) -> None:
    """With the value's name and what to do."""
    values, words = BAD[wrong]
    done = template(tmp_path, *BROKER, *(word for value in values for word in ("--set", value)))
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize("values", PAGE, ids=["kubevirt", "libvirt", "more"])
def test_values_of_the_page_render(values: str, tmp_path: Path) -> None:
    """Each that docs/helm.md shows."""
    file = tmp_path / "values.yaml"
    file.write_text(values)
    assert rendered(tmp_path, "--values", str(file))


def test_a_release_without_values_is_refused(tmp_path: Path) -> None:
    """Kafka's address has no default."""
    done = template(tmp_path)
    assert done.returncode != 0
    assert "kafka.bootstrapServers is missing" in done.stderr


def test_every_setting_arrives(tmp_path: Path) -> None:
    """Every setting that the schema takes, at its default: as the program reads it, of every type."""
    given: dict[str, dict[str, Any]] = {}
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]["settings"]["properties"]
    for row in rows():
        if row.key in schema.get(row.section, {}).get("properties", {}):
            given.setdefault(row.section, {})[row.key] = row.default
    assert {"libvirt", "guest", "history", "kafka", "web"} <= set(given)
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"settings": given, "producer": {"kubevirt": {"enabled": True}}, "history": {"enabled": True}}))
    parts = set()
    for _, container in containers(rendered(tmp_path, *BROKER, "--values", str(file))):
        part = container["args"][0]
        read = load(None, settings(container))
        for section in set(given) & set(SECTIONS[part]):
            for key, value in given[section].items():
                assert getattr(getattr(read, section), key) == value, (part, section, key)
        parts.add(part)
    assert parts == {"producer", "processors", "exporter", "history"}


def test_an_adapter_alone_needs_no_kafka(tmp_path: Path) -> None:
    """Where its values come from Prometheus."""
    off = ["processors.enabled=false", "exporter.enabled=false", "adapter.enabled=true", BUNDLE]
    words = [word for value in [*off, "settings.adapter.prometheus_url=http://prometheus:9090"] for word in ("--set", value)]
    ((_, container),) = containers(rendered(tmp_path, *words))
    assert settings(container)["VIRTFLOW_ADAPTER_PROMETHEUS_URL"] == "http://prometheus:9090"
    assert "VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS" not in settings(container)
    done = template(tmp_path, *words, "--set", "topics.create=true")
    assert "kafka.bootstrapServers is missing" in done.stderr


def test_shards_cover_the_fleet(tmp_path: Path) -> None:
    """Pods are numbered from 1, as shards are, and each pod's number is its shard's."""
    exporter = named(rendered(tmp_path, *BROKER, "--set", "exporter.shards=3"), "StatefulSet", "virtflow-exporter")
    assert (exporter["spec"]["replicas"], exporter["spec"]["ordinals"]) == (3, {"start": 1})
    (container,) = exporter["spec"]["template"]["spec"]["containers"]
    first = container["env"][0]
    assert (first["name"], first["valueFrom"]["fieldRef"]["fieldPath"]) == ("SHARD", "metadata.labels['apps.kubernetes.io/pod-index']")
    given = settings(container)
    assert given["VIRTFLOW_EXPORTER_SHARD"] == "$(SHARD)/3"
    assert [target.partition(".")[0] for target in given["VIRTFLOW_EXPORTER_TARGETS"].split(",")] == [
        f"virtflow-exporter-{number}" for number in (1, 2, 3)
    ]


def test_the_journals_folder_is_made_by_what_the_pod_may(tmp_path: Path) -> None:
    """By root with two capabilities, as often as the pod starts, and then it is the producer's alone."""
    pod = named(rendered(tmp_path, *BROKER, "--set", "producer.libvirt.enabled=true"), "DaemonSet", "virtflow-producer-libvirt")
    (first,) = pod["spec"]["template"]["spec"]["initContainers"]
    kept = ",".join(f"+{name.lower()}" for name in first["securityContext"]["capabilities"]["add"])
    command = [word.replace("/var/lib/virtflow", str(tmp_path / "journal")) for word in first["command"]]
    (tmp_path / "journal").mkdir()
    for _ in range(2):
        done = subprocess.run(["setpriv", f"--bounding-set=-all,{kept}", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    made = (tmp_path / "journal" / "producer").stat()
    assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (10001, 0o700)


def test_plain_manifests_are_those_of_the_chart() -> None:
    """What `scripts/render-kubernetes --check` compares."""
    done = subprocess.run([sys.executable, "-m", "tools.helm.manifests", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
