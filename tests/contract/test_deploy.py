"""What operators install: units, rules and alerts, each held against what virtflow really has."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command_line import parse_command_line
from tests.support.prometheus import check_rule_tests
from tools.dashboards.promql import HOST_METRICS, NAME
from tools.release_schemas import RULE_NAMES, rule_lines
from virtflow.processors.dead_letters.limit import TooManyUndecodableError
from virtflow.processors.instance_id import NameTakenError
from virtflow.runtime.settings import Settings
from virtflow.schemas.catalogue.metrics import BY_NAME
from virtflow.schemas.errors import StopForGoodError

FOR_GOOD = 3

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
RULE_FILES = sorted((ROOT / "deploy" / "prometheus").glob("*.yml"))
RULE_TESTS = Path(__file__).parent / "data" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"
PROGRAM = "/opt/virtflow/bin/virtflow"
HARDENING = {
    "NoNewPrivileges": "true",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "true",
    "PrivateTmp": "true",
    "PrivateDevices": "true",
    "Type": "notify",
    "Restart": "always",
}


def rules(file: Path) -> list[dict[str, Any]]:
    """Every rule of a rule file."""
    return [rule for group in yaml.safe_load(file.read_text()).get("groups", []) for rule in group["rules"]]


ALL_RULES = [rule for file in RULE_FILES for rule in rules(file)]
ALERTS = {rule["alert"]: rule for rule in ALL_RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}


def unknown_names(promql: str) -> set[str]:
    """Names in a query that neither the catalogue nor a recording rule has, nor node_exporter, as far as rules ask it."""
    without_strings = re.sub(r'"[^"]*"', '""', promql)
    return set(NAME.findall(without_strings)) - set(BY_NAME) - RECORDED - set(HOST_METRICS)


def directives(unit: Path) -> dict[str, str]:
    """A unit's directives; of one that is given twice, the last."""
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_ask_for_what_exists(rule: dict[str, Any]) -> None:
    """A rule over a metric that nobody exposes would be silent indefinitely."""
    assert unknown_names(rule["expr"]) == set()
    assert NAME.search(rule["expr"]) or "up{" in rule["expr"]


def test_an_unknown_name_is_found() -> None:
    """The search above finds a wrong name wherever it stands in a query."""
    assert unknown_names('sum by (node) (rate(vm_cpu_second_total{a="vm_x"}[5m])) > virtflow:nothing:sum') == {
        "vm_cpu_second_total",
        "virtflow:nothing:sum",
    }


def test_no_released_recording_rule_is_gone() -> None:
    """Dashboards and alerts of an operator's own go on finding it."""
    released = RULE_NAMES.read_text().splitlines()
    assert len(released) > 15
    assert set(released) - set(rule_lines()) == set()


@pytest.mark.parametrize("name", ["rules", "alerts"])
def test_rules_do_what_they_say(name: str) -> None:
    """Rules and alerts pass promtool's own tests."""
    check_rule_tests(RULE_TESTS / f"{name}.yml")


def test_every_alert_is_tested_and_has_its_page() -> None:
    """Each alert fires in a test, names a page that exists, and the index and the pages say the same."""
    tested = {
        case["alertname"]
        for test in yaml.safe_load((RULE_TESTS / "alerts.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert tested == set(ALERTS)
    index = (RUNBOOKS / "README.md").read_text()
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
        assert f"# {name}" in (RUNBOOKS / f"{name}.md").read_text()
        assert f"({name}.md)" in index
        assert rule["labels"]["severity"] in {"warning", "critical"}
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {*ALERTS, "README"}


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_runbooks_answer_the_three_questions(name: str) -> None:
    """A page says what it means, what to look at, and what to do."""
    page = (RUNBOOKS / f"{name}.md").read_text()
    for heading in ("## What it means", "## Look", "## Do"):
        assert heading in page
    for line in re.findall(r"^ {4}virtflow (.+)$", page, re.MULTILINE):
        parse_command_line(shlex.split(line, comments=True))
    for query in re.findall(r"^ {4}promql> (.+)$", page, re.MULTILINE):
        assert unknown_names(query) == set()


def test_scrape_configuration_is_valid() -> None:
    """Prometheus takes it, rules included."""
    done = subprocess.run(
        ["promtool", "check", "config", str(ROOT / "deploy" / "prometheus" / "prometheus.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_containers_scrape_configuration_is_valid(tmp_path: Path) -> None:
    """Prometheus takes it where the compose file mounts it, beside the rules."""
    for file in (ROOT / "deploy" / "container" / "prometheus.yml", *(path for path in RULE_FILES if path.stem != "prometheus")):
        (tmp_path / file.name).write_text(file.read_text())
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_run_real_commands_as_users_of_their_own(unit: Path) -> None:
    """The command is one that virtflow takes, and the user is in the sysusers file and in no group of others."""
    given = directives(unit)
    program, *words = shlex.split(given["ExecStart"])
    assert program == PROGRAM
    assert parse_command_line(words).startswith(unit.stem.replace("-", " ", 1))
    assert given["User"] == given["Group"] == unit.stem
    assert "SupplementaryGroups" not in given
    assert f"u {unit.stem} - " in (ROOT / "deploy" / "systemd" / "virtflow.sysusers").read_text()


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_are_hardened(unit: Path) -> None:
    """What every unit must have, and systemd's own measure of what is left."""
    given = directives(unit)
    assert {key: given.get(key) for key in HARDENING} == HARDENING
    assert "MemoryMax" in given
    assert int(given["TimeoutStopSec"]) > 10, "a service drains for ten seconds"


def test_what_ended_for_good_is_not_started_again() -> None:
    """Exit code 3: of the services only the processors can end so, and each start of theirs would set more messages aside."""
    units = {unit.stem: directives(unit).get("RestartPreventExitStatus") for unit in UNITS}
    assert units == {unit: str(FOR_GOOD) if unit == "virtflow-processors" else None for unit in units}
    names = {error.__name__ for error in StopForGoodError.__subclasses__()}
    assert names == {NameTakenError.__name__, TooManyUndecodableError.__name__}


def test_the_producer_may_write_its_journal() -> None:
    """In a read-only system the journal's default folder is one that the unit and the image make, for its user alone."""
    given = directives(ROOT / "deploy" / "systemd" / "virtflow-producer.service")
    state = Path("/var/lib") / given["StateDirectory"]
    assert Path(Settings().producer.journal_folder).is_relative_to(state)
    assert given["StateDirectoryMode"] == "0700"
    assert f"install -d -o virtflow -m 700 {state}" in (ROOT / "deploy" / "container" / "producer.Dockerfile").read_text()


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_the_units(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze` finds nothing wrong, and little exposed."""
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace(PROGRAM, sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr.strip()) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(here)]
    exposed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert exposed.returncode == 0, exposed.stdout[-500:]
