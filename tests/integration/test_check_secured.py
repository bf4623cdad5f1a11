"""``virtflow check``, ``topics``, ``tap`` and ``simulate`` say what is wrong with a secured broker, and how to fix it: each against a real one."""

from __future__ import annotations

import contextlib
import json
import signal
import socketserver
import ssl
import subprocess
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
BEFORE, NOW, AFTER = (datetime.now(UTC) + timedelta(days=days) for days in (-30, 0, 30))


@dataclass
class Site:
    """A broker with all topics and a user that has no right; ``ports`` are addresses of it, and of a server that is too old."""

    broker: SecureBroker
    ports: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The broker shows other certificates on ports of their own."""
    broker = SecureBroker(tmp_path_factory.mktemp("secured"), [USER])
    issue = broker.authority.issue
    ports = {
        "expired": broker.show(issue("expired", HOST, begins=BEFORE, ends=NOW - timedelta(days=1))),
        "early": broker.show(issue("early", HOST, begins=NOW + timedelta(days=1), ends=AFTER)),
        "elsewhere": broker.show(issue("elsewhere", "elsewhere.example", begins=BEFORE, ends=AFTER)),
        "plain": broker.address,
        "certified": broker.certified,
        "nobody": f"127.0.0.1:{free_ports(1)[0]}",
    }
    with broker, old_server(broker.authority) as ports["old"]:
        made = virtflow("topics", "create", "--bootstrap-servers", broker.address)
        assert made.returncode == 0, made.stderr
        yield Site(broker, ports)


@pytest.fixture
def secured(site: Site) -> SecureBroker:
    """The broker alone."""
    return site.broker


@contextmanager
def old_server(authority: Authority) -> Iterator[str]:
    """A server that speaks TLS 1.0 and nothing newer; its address."""
    pair = authority.server("old")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    context.load_cert_chain(pair.certificate, pair.key)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                context.wrap_socket(self.request, server_side=True).close()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"{HOST}:{server.server_address[1]}"
        server.shutdown()


def check(env: dict[str, str], service: str = "exporter", things: Collection[str] = ("broker", "topic")) -> list[dict[str, Any]]:
    """The findings that are not good, about broker and topics where nothing else is asked for."""
    listen = {f"VIRTFLOW_{name}_LISTEN": f"127.0.0.1:{free_ports(1)[0]}" for name in ("EXPORTER", "PROCESSORS")}
    done = virtflow("check", "--for", service, "--json", env=env | listen)
    assert not done.stderr
    return [one for one in json.loads(done.stdout)["findings"] if one["thing"] in things and not one["ok"]]


BY_CERTIFICATE = {"security_protocol": "SSL", "sasl_mechanism": "", "sasl_username": "", "sasl_password_file": ""}
WRONG: dict[str, tuple[str, dict[str, str], list[str], list[str]]] = {
    "wrong password": ("", {}, ["SASL is refused", "invalid credentials"], ["sasl_password_file"]),
    "wrong user": ("", {"sasl_username": "nobody"}, ["SASL is refused", "invalid credentials"], ["sasl_username (nobody)", ".password"]),
    "mechanism": ("", {"sasl_mechanism": "SCRAM-SHA-256"}, ["SASL is refused", "SCRAM-SHA-512"], ["kafka.sasl_mechanism"]),
    "no name": ("", {"bootstrap_servers": "nowhere.invalid:9092"}, ["its name is not known", "nowhere.invalid"], ["DNS"]),
    "nobody listens": ("nobody", {}, ["does not answer: Connect to", "refused"], ["start the broker", "--bootstrap-servers"]),
    "unknown authority": ("", {"tls_ca_file": ""}, ["TLS:", "issuer certificate", "signed by", "valid from"], ["kafka.tls_ca_file"]),
    "expired": ("expired", {}, ["TLS:", "expired", HOST, f"to {NOW - timedelta(days=1):%Y-%m-%d}"], ["valid today", "clock"]),
    "not yet valid": ("early", {}, ["TLS:", "not yet valid", f"from {NOW + timedelta(days=1):%Y-%m-%d}"], ["valid today", "clock"]),
    "wrong name": ("elsewhere", {}, ["TLS:", "ostname", "elsewhere.example"], ["advertised.listeners"]),
    "TLS 1.0": ("old", {}, ["TLS older than 1.2"], ["ssl.enabled.protocols"]),
    "plain text to TLS": ("", {"security_protocol": "PLAINTEXT"}, ["speaks TLS on this port", "is PLAINTEXT"], ["SASL_SSL"]),
    "password in clear to TLS": ("", {"security_protocol": "SASL_PLAINTEXT"}, ["speaks TLS on this port"], ["to SASL_SSL"]),
    "TLS to plain text": ("plain", {}, ["speaks no TLS on this port"], ["TLS port"]),
    "no client certificate": ("certified", BY_CERTIFICATE, ["does not accept this client's certificate"], ["kafka.tls_certificate_file"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_client_that_is_not_let_in(site: Site, tmp_path: Path, name: str) -> None:
    """``check`` and ``topics list`` give the same reason, and never the advice to start a broker that runs."""
    port, changed, reasons, fixes = WRONG[name]
    named = {"bootstrap_servers": site.ports[port]} if port else {}
    env = site.broker.as_user(USER, tmp_path, **named, **changed)
    if name == "wrong password":
        (tmp_path / f"{USER}.password").write_text("guessed")
    found = next(one for one in check(env) if one["thing"] == "broker")
    line = one_line_error(virtflow("topics", "list", env=env), 1)
    for told, fix in ((found["detail"], found["fix"]), (line, line)):
        assert all(reason in told for reason in reasons), told
        assert all(word in fix for word in fixes), fix
        assert ("start the broker" in fix) == (port == "nobody")


def test_a_port_that_wants_a_certificate(secured: SecureBroker, tmp_path: Path) -> None:
    """With the right one the broker answers. One of which only half was replaced is no certificate, and neither is one that others can read."""
    mine, other = (secured.authority.issue(name, "client.example", common_name="client") for name in ("client", "other"))
    shown = {"tls_certificate_file": str(mine.certificate), "tls_key_file": str(mine.key), "bootstrap_servers": secured.certified}
    env = secured.as_user(USER, tmp_path, **BY_CERTIFICATE, **shown)
    assert {one["thing"] for one in check(env)} == {"topic"}
    other.certificate.replace(mine.certificate)
    (found,) = check(env, things={"setting"})
    assert found["value"] == f"kafka.tls_key_file = '{mine.key}'"
    assert "key values mismatch" in found["detail"]
    mine.key.chmod(0o644)
    (found,) = check(env, things={"file"})
    assert "other users can use this secret: -rw-r--r-- (kafka.tls_key_file)" in found["detail"]
    assert found["fix"] == f"chmod o= {mine.key}"


def test_a_registry_that_speaks_tls(site: Site, tmp_path: Path) -> None:
    env = site.broker.as_user(USER, tmp_path) | {"VIRTFLOW_REGISTRY_URL": f"http://{site.broker.secured}"}
    (found,) = check(env, things={"registry"})
    assert "speaks TLS on this port" in found["detail"]
    assert found["fix"] == f"write registry.url as https://{site.broker.secured}"


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
