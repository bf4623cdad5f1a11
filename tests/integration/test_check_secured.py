"""``virtflow check``, ``topics``, ``tap`` and ``simulate`` say what is wrong with a secured broker, and how to fix it: each against a real one."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.certificates import Authority
from tests.support.command import PROGRAM, environment, one_line_error, virtflow
from tests.support.processors import eventually
from tests.support.secure_broker import HOST, SecureBroker

USER = "checker"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """A broker with all topics, and a user that has no right."""
    with SecureBroker(tmp_path_factory.mktemp("secured"), [USER]) as broker:
        made = virtflow("topics", "create", "--bootstrap-servers", broker.address)
        assert made.returncode == 0, made.stderr
        yield broker


def check(env: dict[str, str], service: str = "exporter") -> list[dict[str, Any]]:
    """The findings about broker and topics that are not good."""
    listen = {f"VIRTFLOW_{name}_LISTEN": f"127.0.0.1:{free_ports(1)[0]}" for name in ("EXPORTER", "PROCESSORS")}
    done = virtflow("check", "--for", service, "--json", env=env | listen)
    assert not done.stderr
    return [one for one in json.loads(done.stdout)["findings"] if one["thing"] in {"broker", "topic"} and not one["ok"]]


WRONG: dict[str, tuple[dict[str, str], list[str], list[str]]] = {
    "wrong password": ({"sasl_username": "nobody"}, ["SASL is refused", "invalid credentials"], ["sasl_username (nobody)", ".password"]),
    "mechanism": ({"sasl_mechanism": "SCRAM-SHA-256"}, ["SASL is refused", "SCRAM-SHA-512"], ["kafka.sasl_mechanism"]),
    "no name": ({"bootstrap_servers": "nowhere.invalid:9092"}, ["its name is not known", "nowhere.invalid"], ["DNS"]),
    "system's authorities": (
        {"tls_ca_file": ""},
        ["TLS:", "issuer certificate", "localhost", "signed by", "valid from"],
        ["kafka.tls_ca_file"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_client_that_is_not_let_in(secured: SecureBroker, tmp_path: Path, name: str) -> None:
    """``check`` and ``topics list`` give the same reason, and never the advice to start a broker that runs."""
    changed, reasons, fixes = WRONG[name]
    env = secured.as_user(USER, tmp_path, **changed)
    (found,) = check(env)
    line = one_line_error(virtflow("topics", "list", env=env), 1)
    for told, fix in ((found["detail"], found["fix"]), (line, line)):
        assert all(reason in told for reason in reasons), told
        assert all(word in fix for word in fixes), fix
        assert "start the broker" not in fix


def test_plain_text_to_a_tls_port(secured: SecureBroker, tmp_path: Path) -> None:
    plain = {"VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": secured.secured}
    (found,) = check(plain)
    assert "speaks TLS on this port, and kafka.security_protocol is PLAINTEXT" in found["detail"]
    assert "SASL_SSL" in found["fix"]
    password = secured.as_user(USER, tmp_path, security_protocol="SASL_PLAINTEXT", tls_ca_file="")
    (found,) = check(password)
    assert "speaks TLS on this port" in found["detail"]
    assert found["fix"] == "set kafka.security_protocol to SASL_SSL"


def test_tls_to_a_plain_port(secured: SecureBroker, tmp_path: Path) -> None:
    (found,) = check(secured.as_user(USER, tmp_path, bootstrap_servers=secured.address))
    assert "speaks no TLS on this port" in found["detail"]
    assert "TLS port" in found["fix"]


def test_nobody_listens(secured: SecureBroker, tmp_path: Path) -> None:
    (found,) = check(secured.as_user(USER, tmp_path, bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}"))
    assert "does not answer: Connect to" in found["detail"]
    assert "refused" in found["detail"]
    assert found["fix"] == "start the broker, or name another with --bootstrap-servers"


def test_a_port_that_wants_a_certificate(secured: SecureBroker, tmp_path: Path) -> None:
    """Without one, and with one of a foreign authority, the reason is TLS; with the right one the broker answers."""
    tls = {
        "security_protocol": "SSL",
        "sasl_mechanism": "",
        "sasl_username": "",
        "sasl_password_file": "",
        "bootstrap_servers": secured.certified,
    }
    (found,) = check(secured.as_user(USER, tmp_path, **tls))
    assert "does not accept this client's certificate" in found["detail"]
    assert "kafka.tls_certificate_file" in found["fix"]
    mine = secured.authority.issue("client", "client.example", common_name="client")
    shown = {"tls_certificate_file": str(mine.certificate), "tls_key_file": str(mine.key)}
    assert {one["thing"] for one in check(secured.as_user(USER, tmp_path, **tls, **shown))} == {"topic"}


@pytest.mark.parametrize(
    ("names", "days", "why", "fix"), [(("localhost",), -1, "expired", "clock"), (("elsewhere",), 1, "ostname", "advertised")]
)
def test_a_broker_s_certificate_that_does_not_hold(tmp_path: Path, names: tuple[str, ...], days: int, why: str, fix: str) -> None:
    """Its names and dates are told."""
    authority = Authority(tmp_path / "own")
    ends = datetime.now(UTC) + timedelta(days=days)
    shown = authority.issue("broker", *names, begins=ends - timedelta(days=30), ends=ends)
    with SecureBroker(tmp_path / "broker", [USER], shown) as broker:
        (found,) = check(broker.as_user(USER, tmp_path, tls_ca_file=str(authority.file)))
    assert why in found["detail"]
    assert names[0] in found["detail"]
    assert f"to {ends:%Y-%m-%d}" in found["detail"]
    assert fix in found["fix"]


def test_too_few_rights_are_not_missing_topics(secured: SecureBroker, tmp_path: Path) -> None:
    """A user without rights is told which operation it lacks, by every command that asks for topics."""
    env = secured.as_user(USER, tmp_path, mechanism="PLAIN")
    found = check(env)
    assert {one["thing"] for one in found} == {"topic"}
    assert {one["detail"] for one in found} == {"missing, or this user may not see it"}
    assert all("Describe" in one["fix"] and "virtflow topics acls" in one["fix"] for one in found)
    line = one_line_error(virtflow("tap", "metrics", env=env), 1)
    assert "uthorization failed" in line
    assert "virtflow topics acls --for tap" in line
    refused = one_line_error(virtflow("topics", "acls", "--for", "tap", "--principal", f"User:{USER}", "--apply", env=env), 1)
    assert "this user may not give rights" in refused
    assert "super user" in refused


def test_a_broker_without_authorizer_says_so(broker: Any) -> None:  # noqa: ANN401, the session's broker
    words = ("topics", "acls", "--for", "tap", "--principal", "User:x", "--apply", "--bootstrap-servers", broker.address)
    assert "no authorizer" in one_line_error(virtflow(*words), 1)


def test_simulate_without_a_right_goes_on_and_says_why(secured: SecureBroker, tmp_path: Path) -> None:
    """It neither ends nor prints a traceback: once the right is given its messages arrive."""
    log = tmp_path / "log"
    env = environment(secured.as_user(USER, tmp_path))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*DIES_WITH_US, str(PROGRAM), "simulate", "--nodes", "1", "--vms", "1", "--interval", "0.2", "--migrations", "0"],
            env=env,
            stderr=out,
            stdout=out,
        )
        try:
            eventually("the reason", lambda: "uthorization failed" in log.read_text(), 20.0)
            given = virtflow(
                "topics", "acls", "--for", "producer", "--principal", f"User:{USER}", "--apply", "--bootstrap-servers", secured.address
            )
            assert given.returncode == 0, given.stderr
            env_admin = secured.as_user("admin", tmp_path)
            tap = virtflow("tap", "snapshots", "--from", "beginning", "--count", "1", "--json", env=env_admin, seconds=60)
            assert tap.returncode == 0, tap.stderr
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert HOST in secured.secured
