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

from tests.support.command_line import ALL as ALL_COMMANDS
from tests.support.command_line import parse_command_line
from tests.support.prometheus import check_rule_tests
from tools.dashboards.promql import HOST_METRICS, NAME
from tools.release_schemas import RULE_NAMES, rule_lines
from virtflow.cli.config import toml_value
from virtflow.processors.dead_letters.limit import TooManyUndecodableError
from virtflow.processors.instance_id import NameTakenError
from virtflow.runtime.config_files import INSTANCE_VARIABLE, SECTIONS
from virtflow.runtime.configuration import rows
from virtflow.runtime.secrets import CREDENTIALS
from virtflow.runtime.settings import Settings
from virtflow.schemas.catalogue.metrics import BY_NAME
from virtflow.schemas.errors import StopForGoodError

FOR_GOOD = 3
EXPOSURE = 16
"""What systemd's own measure may say of a unit, in tenths: 0 is nothing exposed, 100 everything."""

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "deploy" / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
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
    "LimitCORE": "0",
    "Type": "notify",
    "Restart": "always",
}


def rules(file: Path) -> list[dict[str, Any]]:
    """Every rule of a rule file."""
    return [rule for group in yaml.load(file.read_text(), yaml.CSafeLoader).get("groups", []) for rule in group["rules"]]


ALL_RULES = [rule for file in RULE_FILES for rule in rules(file)]
ALERTS = {rule["alert"]: rule for rule in ALL_RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}


def unknown_names(promql: str) -> set[str]:
    """Names in a query that neither the catalogue nor a recording rule has, nor node_exporter, as far as rules ask it."""
    without_strings = re.sub(r'"[^"]*"', '""', promql)
    return set(NAME.findall(without_strings)) - set(BY_NAME) - RECORDED - set(HOST_METRICS)


def all_directives(unit: Path) -> list[tuple[str, str]]:
    """A unit's directives in their order."""
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def directives(unit: Path) -> dict[str, str]:
    """A unit's directives; of one that is given twice, the last."""
    return dict(all_directives(unit))


def part_in(unit: Path) -> str:
    """The part whose command a unit runs."""
    return shlex.split(directives(unit)["ExecStart"])[1]


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


def test_every_service_has_a_job_and_an_alert_for_when_it_is_down() -> None:
    """Each with a page of its own that the operator finds at once: /metrics of the writer says nothing of who serves."""
    jobs = {
        job["job_name"]: job["static_configs"]
        for job in yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    }
    defaults = Settings()
    assert jobs == {
        job: [{"targets": [listen]}]
        for job, listen in (
            ("virtflow", defaults.exporter.listen),
            ("virtflow-processors", defaults.processors.listen),
            ("virtflow-history", defaults.history.listen),
            ("virtflow-history-serve", defaults.history.serve_listen),
        )
    }
    down = {rule["expr"] for rule in ALERTS.values() if rule["expr"].startswith("up{")}
    assert down == {f'up{{job="{job}"}} == 0' for job in jobs}


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


def test_the_units_are_there() -> None:
    """One for each service, and templates for what runs more than once on a host; the Kubernetes adapter runs in a cluster."""
    assert {unit.stem for unit in UNITS} == {
        "virtflow-producer",
        "virtflow-node",
        "virtflow-processors",
        "virtflow-processors@",
        "virtflow-exporter",
        "virtflow-exporter@",
        "virtflow-history",
        "virtflow-history-serve",
    }


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_run_real_commands_as_users_of_their_own(unit: Path) -> None:
    """The command is one that virtflow takes and reads its part's settings; the user is in a sysusers file, and in the group virtflow alone."""
    given = directives(unit)
    program, *words = shlex.split(given["ExecStart"])
    assert program == PROGRAM
    assert parse_command_line(words) == " ".join(["virtflow", *words]), "what is set in files is not overridden here"
    part = part_in(unit)
    assert unit.stem.startswith(f"virtflow-{part}")
    assert given["User"] == given["Group"] == f"virtflow-{part}"
    assert "SupplementaryGroups" not in given
    users = "".join(file.read_text() for file in SYSTEMD.glob("*.sysusers"))
    assert re.findall(rf"^[um] virtflow-{part} .*$", users, re.MULTILINE) == [
        f'u virtflow-{part} - "virtflow {part}"',
        f"m virtflow-{part} virtflow",
    ]
    assert "g virtflow -\n" in users


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_give_each_part_its_own_secrets(unit: Path) -> None:
    """All that its settings can name, under the setting's name, from files of its own; systemd lets one that is missing pass, if it has no path."""
    part = part_in(unit)
    loaded = [value for key, value in all_directives(unit) if key == "LoadCredential"]
    wanted = {setting for setting in CREDENTIALS if setting.partition(".")[0] in SECTIONS[part]}
    assert loaded == [f"{setting}:virtflow-{part}.{setting}" for setting in sorted(wanted)]
    assert loaded
    text = unit.read_text()
    assert "/etc/virtflow" not in text, "files are chosen by the program"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_templates_name_their_instance(unit: Path) -> None:
    """Instances of a template share neither a state directory nor, in a consumer group, a name."""
    environment = [value for key, value in all_directives(unit) if key == "Environment"]
    template = unit.stem.endswith("@")
    assert ("VIRTFLOW_INSTANCE=%i" in environment) is template
    assert ("%i" in directives(unit)["StateDirectory"]) is template
    assert ("VIRTFLOW_PROCESSORS_INSTANCE=%H-%i" in environment) is (unit.stem == "virtflow-processors@")
    variables = {value.partition("=")[0] for value in environment if value.startswith("VIRTFLOW_")}
    assert variables <= {INSTANCE_VARIABLE, *(row.variable for row in rows())}


def test_what_units_keep_lies_apart() -> None:
    """Systemd gives a state directory to the unit's user: below another user's, nobody else could reach it."""
    users = {(Path("/var/lib") / directives(unit)["StateDirectory"], directives(unit)["User"]) for unit in UNITS}
    for one, owner in users:
        for other, user in users:
            assert owner == user or not one.is_relative_to(other), (one, other)
    assert {directives(unit)["StateDirectoryMode"] for unit in UNITS} == {"0700"}
    for file in SYSTEMD.glob("*.tmpfiles"):
        assert "d /var/lib/virtflow 0755 root root -\n" in file.read_text()


def test_what_is_kept_by_default_is_where_the_unit_may_write() -> None:
    """In a read-only system; the producer's image makes the folder above for its user alone."""
    states = {part_in(unit): Path("/var/lib") / directives(unit)["StateDirectory"] for unit in UNITS if not unit.stem.endswith("@")}
    defaults = Settings()
    assert Path(defaults.producer.journal_folder).is_relative_to(states["producer"])
    assert Path(defaults.exporter.keep_file).is_relative_to(states["node"])
    assert Path(defaults.history.path).is_relative_to(states["history"])
    assert "install -d -o virtflow -m 700 /var/lib/virtflow\n" in (ROOT / "deploy" / "container" / "producer.Dockerfile").read_text()


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_name_pages_that_there_are(unit: Path) -> None:
    """Each is a manual page of ours, which packages install."""
    pages = directives(unit)["Documentation"].split()
    assert pages
    for page in pages:
        name, section = re.fullmatch(r"man:(.+)\((\d)\)", page).groups()  # type: ignore[union-attr]
        assert (ROOT / "deploy" / "man" / f"{name}.{section}").exists()


@pytest.mark.parametrize("page", sorted((ROOT / "deploy" / "man").glob("*.[1-8]")), ids=lambda path: path.name)
def test_manual_pages_are_read_without_a_complaint(page: Path) -> None:
    """By groff, with all its warnings; and what they show is what the commands and settings say."""
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-rLL=300n", str(page)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)
    words = (
        [f"virtflow {name}" for name in ALL_COMMANDS]
        if page.suffix == ".1"
        else [f"{row.key} = {toml_value(row.default)}" for row in rows()]
    )
    flat = " ".join(shown.split())
    assert [word for word in words if " ".join(word.split()) not in flat] == []


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
    assert units == {unit: str(FOR_GOOD) if unit.startswith("virtflow-processors") else None for unit in units}
    names = {error.__name__ for error in StopForGoodError.__subclasses__()}
    assert names == {NameTakenError.__name__, TooManyUndecodableError.__name__}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_the_units(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze` finds nothing wrong, and little exposed."""
    here = tmp_path / unit.name.replace("@.", "@one.")
    here.write_text(unit.read_text().replace(PROGRAM, sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr.strip()) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(here)]
    exposed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert exposed.returncode == 0, exposed.stdout[-500:]
