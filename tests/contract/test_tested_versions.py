"""docs/compatibility.md names the versions that tests really run with."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.kubernetes.build import VERSION
from tests.support.kubernetes.validator import RELEASES as RELEASES_OF_KUBERNETES
from tests.support.lab_release import RELEASES
from tools.helm.program import VERSION as HELM

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()


def rows() -> set[tuple[str, ...]]:
    """The first four columns of each row of the page's first table: release, libvirt, QEMU, daemon."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    return {tuple(cell.strip() for cell in line.split("|")[1:5]) for line in lines if line.split("|")[1].strip() in RELEASES}


def test_the_table_of_hypervisors_is_the_labs_list() -> None:
    daemons = {one.name: ["libvirtd", *(["virtqemud"] if one.modular else [])] for one in RELEASES.values()}
    assert rows() == {(one.name, one.libvirt, one.qemu, daemon) for one in RELEASES.values() for daemon in daemons[one.name]}


def test_kafka_is_the_embedded_brokers() -> None:
    pom = (ROOT / "deploy" / "embedded" / "pom.xml").read_text()
    found = re.search(r"<kafka.version>(.+)</kafka.version>", pom)
    assert found is not None
    assert f"| Kafka | {found[1]}, " in PAGE


def test_kubernetes_is_the_labs() -> None:
    assert f"| Kubernetes | {VERSION.removeprefix('v')}: " in PAGE


def test_helm_is_the_one_that_tests_build() -> None:
    assert f"| Helm | {HELM.removeprefix('v')} " in PAGE
    assert " and ".join(RELEASES_OF_KUBERNETES) in PAGE


def test_libvirt_python_is_the_locks() -> None:
    found = re.search(r"^libvirt-python==(\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert found is not None
    assert f"| libvirt-python | {found[1]} " in PAGE
