"""The compose file against its specification, the real commands and the real settings: no container engine is needed to know."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

from tests.support.command_line import parse_command_line
from virtflow.runtime.configuration import rows

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Path(__file__).parent / "data" / "compose-spec" / "compose-spec.json"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
COMMANDS = sorted(name for name in OURS if "entrypoint" not in SERVICES[name])
"""Those that run a command of virtflow's."""
DOCKERFILES = sorted((ROOT / "deploy" / "container").glob("*.Dockerfile"))


def compose_errors(document: object) -> list[str]:
    """What the Compose Specification's schema says against a document."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def test_follows_the_compose_specification() -> None:
    """The file is one that any implementation of the specification takes."""
    assert compose_errors(COMPOSE) == []


def test_the_schema_would_object() -> None:
    """A wrong key and a wrong type are found, so the test above means something."""
    service = {**SERVICES["exporter"], "helthcheck": {}}
    assert compose_errors({**COMPOSE, "services": {"exporter": service}})
    assert compose_errors({**COMPOSE, "services": {"exporter": {**SERVICES["exporter"], "ports": 9177}}})


def test_everything_the_pipeline_needs_is_there() -> None:
    """The whole pipeline, its history, and what shows and sends it; simulated nodes only when asked for."""
    pipeline = {"broker", "topics", "processors", "exporter", "keys", "storage", "history", "history-serve"}
    assert set(SERVICES) == {*pipeline, "prometheus", "alertmanager", "grafana", "simulator"}
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"simulator"}
    assert OURS == ["exporter", "history", "history-serve", "keys", "processors", "simulator", "topics"]
    assert set(OURS) - set(COMMANDS) == {"keys"}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_real(name: str) -> None:
    """Each service's command is one that this version's command line takes."""
    words = SERVICES[name]["command"]
    assert all(isinstance(word, str) for word in words)
    assert parse_command_line(words).startswith("virtflow ")


def test_a_wrong_switch_is_found() -> None:
    """The parser is the real one: what does not exist is an error."""
    for wrong in (["exporter", "--lisen", "0.0.0.0:1"], ["nothing"], ["topics"], ["exporter", "surplus"]):
        with pytest.raises(click.UsageError):
            parse_command_line(wrong)


@pytest.mark.parametrize("name", OURS)
def test_settings_are_real(name: str) -> None:
    """Each VIRTFLOW_ variable is a setting's."""
    known = {row.variable for row in rows()}
    variables = {variable for variable in SERVICES[name]["environment"] if variable.startswith("VIRTFLOW_")}
    assert variables
    assert variables <= known


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_no_more_rights_than_they_need(name: str) -> None:
    """Read-only root, no capability, no way to more, and no core that would hold passwords."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ulimits"] == {"core": 0}
    assert "privileged" not in service


def test_the_broker_is_the_embedded_ones_version() -> None:
    """What tests prove of the embedded broker holds for this one."""
    pom = (ROOT / "deploy" / "embedded" / "pom.xml").read_text()
    version = re.search(r"<kafka\.version>(.+)</kafka\.version>", pom)
    assert version is not None
    assert SERVICES["broker"]["image"] == f"apache/kafka:{version[1]}"


def test_images_have_a_version() -> None:
    """No image moves by itself."""
    for name, service in SERVICES.items():
        if name not in OURS:
            assert re.search(r":(v?\d+\.\d+|RELEASE\.\d{4}-)", service["image"]), name


def test_published_on_loopback_unless_told_otherwise() -> None:
    """Every published port has an address, loopback by default; that of the broker, for producers, publishes nothing else."""
    addresses = {(name, port.partition(":-127.0.0.1}:")[0]) for name, service in SERVICES.items() for port in service.get("ports", [])}
    assert {address for name, address in addresses if name == "broker"} == {"${VIRTFLOW_BROKER_ADDRESS"}
    pages = {name for name, address in addresses if address == "${VIRTFLOW_PAGES_ADDRESS"}
    assert pages == {name for name, _ in addresses} - {"broker"} == {"exporter", "history-serve", "prometheus", "alertmanager", "grafana"}


def test_there_is_no_password_that_others_know() -> None:
    """Nor a place where one would be seen: what a service needs to know is in a file, made at the first start."""
    for name, service in SERVICES.items():
        secrets = [key for key in service.get("environment", {}) if re.search("PASSWORD|SECRET|TOKEN", key) and not key.endswith("_FILE")]
        assert secrets == [], name
    holders = {name for name, service in SERVICES.items() if any(volume.startswith("keys:") for volume in service.get("volumes", []))}
    assert holders == {"keys", "storage", "history", "history-serve"}
    (folder,) = {volume.split(":")[1] for volume in SERVICES["history"]["volumes"]}
    for variable in ("VIRTFLOW_HISTORY_S3_ACCESS_KEY_FILE", "VIRTFLOW_HISTORY_S3_SECRET_KEY_FILE"):
        path = Path(SERVICES["history"]["environment"][variable])
        assert str(path.parent) == folder
        assert f'"{path.name}"' in SERVICES["keys"]["command"][0]


def test_health_checks_and_scrapes_meet_the_ports_listened_on() -> None:
    """A changed port would be noticed here: listening, health check, publishing and scraping name the same."""
    scrape = yaml.safe_load((ROOT / "deploy" / "container" / "prometheus.yml").read_text())["scrape_configs"]
    for name in ("exporter", "processors", "history", "history-serve"):
        command = SERVICES[name]["command"]
        port = command[command.index("--listen") + 1].rpartition(":")[2]
        assert f"127.0.0.1:{port}/healthz" in SERVICES[name]["healthcheck"]["test"][-1]
        assert f"{name}:{port}" in str(scrape) or f"'names': ['{name}'], 'type': 'A', 'port': {port}" in str(scrape)
        for published in SERVICES[name].get("ports", []):
            assert published.endswith(f":{port}:{port}")


def test_files_that_are_mounted_exist() -> None:
    """Docker makes an empty folder of a file that is not there; here it is an error."""
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume


def test_the_two_prometheus_configurations_differ_in_targets_alone() -> None:
    """The compose file's Prometheus is the documented one, with its own names, and an Alertmanager beside it."""
    files = [ROOT / "deploy" / folder / "prometheus.yml" for folder in ("prometheus", "container")]
    first, second = (yaml.safe_load(file.read_text()) for file in files)
    (alertmanagers,) = second.pop("alerting")["alertmanagers"]
    ((target,),) = [config["targets"] for config in alertmanagers["static_configs"]]
    host, _, port = target.partition(":")
    assert SERVICES[host]["ports"][0].endswith(f":{port}:{port}")
    assert [job["job_name"] for job in first.pop("scrape_configs")] == [job["job_name"] for job in second.pop("scrape_configs")]
    assert first == second


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_nobody_special(dockerfile: Path) -> None:
    """Built in one stage, run in another, as a user that is not root; the default command is real; what is copied exists."""
    lines = [line.split() for line in dockerfile.read_text().replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    assert [words[1] for words in lines if words[0] == "FROM"] == ["${DEBIAN}", "python", "python"]
    assert [words[1] for words in lines if words[0] == "ARG"] == ["DEBIAN=debian:bookworm-slim"]
    users = [words[1] for words in lines if words[0] == "USER"]
    assert users
    assert users[-1] not in {"0", "root"}
    (command,) = (json.loads(" ".join(words[1:])) for words in lines if words[0] == "CMD")
    parse_command_line(command)
    for words in lines:
        if words[0] == "COPY" and not words[1].startswith("--from"):
            assert all((ROOT / source).exists() for source in words[1:-1]), words


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_built_with_pinned_tools(dockerfile: Path) -> None:
    """Nothing is taken from an index but what a lock file pins: the build's own tools neither."""
    installs = re.findall(r"pip install (.*)", dockerfile.read_text())
    assert len(installs) == 3
    for words in installs:
        assert "--require-hashes" in words or {"--no-deps", "--no-build-isolation"} <= set(words.split()), words


def test_what_images_are_built_from() -> None:
    """The build context holds every package and lock file, and each service builds from a Dockerfile that is there."""
    allowed = (ROOT / ".dockerignore").read_text().split()
    for folder in (path.parent.name for path in ROOT.glob("*/__init__.py")):
        assert f"!{folder}" in allowed
    for name in OURS:
        assert (ROOT / SERVICES[name]["build"]["dockerfile"]).exists()
