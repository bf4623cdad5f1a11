"""The DaemonSet of the producer: its command, its settings and its rights are those that docs/kubernetes.md names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command_line import parse_command_line
from virtflow.runtime.configuration import load

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()


@pytest.fixture
def pod() -> dict[str, Any]:
    """The DaemonSet's pod."""
    objects = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "producer.yaml").read_text()) if one}
    found: dict[str, Any] = objects["DaemonSet"]["spec"]["template"]["spec"]
    return found


def test_its_command_and_settings_are_ours(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    assert parse_command_line(container["args"]).endswith("producer")
    settings = load(None, {one["name"]: one.get("value", "worker-1") for one in container["env"]})
    assert settings.libvirt.discover == ["/proc/*/root/var/run/libvirt/virtqemud-sock"]
    assert settings.producer.node == "worker-1"
    (journal,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "journal"]
    assert Path(settings.producer.journal_folder).is_relative_to(journal)
    assert settings.libvirt.discover[0] in PAGE


def test_its_rights_are_those_of_the_page_and_no_more(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    rights = container["securityContext"]
    assert (pod["hostPID"], rights["capabilities"]) == (True, {"drop": ["ALL"], "add": ["SYS_PTRACE", "DAC_OVERRIDE"]})
    assert not rights.get("privileged", False)
    assert rights["allowPrivilegeEscalation"] is False
    assert not pod.get("hostNetwork", False)
    assert pod["automountServiceAccountToken"] is False
    assert all(f"`{right}`" in PAGE for right in rights["capabilities"]["add"])
