"""Alertmanager's example route, judged by its own tool: it is valid, and every alert reaches somebody."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.contract.test_deploy import ALERTS

ALERTMANAGER = Path(__file__).resolve().parents[2] / "deploy" / "alertmanager" / "alertmanager.yml"


def amtool(*words: str) -> str:
    """What Alertmanager's own tool prints; it fails with the tool's complaint."""
    done = subprocess.run(["amtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_alertmanager_takes_its_configuration() -> None:
    assert "SUCCESS" in amtool("check-config", str(ALERTMANAGER))


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alerts_are_routed_by_severity(name: str) -> None:
    """A critical alert reaches the pager, any other the operators; no alert is left without a receiver."""
    labels = {**ALERTS[name]["labels"], "alertname": name}
    words = [f"{label}={value}" for label, value in labels.items()]
    wanted = "pager" if labels["severity"] == "critical" else "operators"
    assert amtool("config", "routes", "test", f"--config.file={ALERTMANAGER}", *words) == wanted


def test_inhibitions_name_alerts_that_exist() -> None:
    """An alert that is renamed would be sent beside its cause."""
    rules = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    named = {name for rule in rules for name in re.findall(r"Virtflow\w+", f"{rule['source_matchers']} {rule['target_matchers']}")}
    assert len(named) > 5
    assert named <= set(ALERTS)
