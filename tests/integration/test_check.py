"""``virtflow check`` against real things: a broker, a registry's port, ports that are taken, libvirt there, away and hanging."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import Broker, free_ports
from tests.support.command import virtflow
from tests.support.lab import Lab
from virtflow.cli.checks import probes
from virtflow.cli.checks.check import findings
from virtflow.cli.checks.findings import Finding
from virtflow.schemas.topics import TOPICS

NOWHERE = "qemu+unix:///system?socket=/nowhere/sock"


@pytest.fixture(scope="module")
def hypervisor() -> Iterator[str]:
    """The URI of a real libvirtd without VMs."""
    with Lab(nodes=1) as lab:
        yield lab.nodes[0].uri


def check(*words: str, **env: str) -> tuple[int, list[dict[str, Any]]]:
    done = virtflow("check", "--json", *words, env=env)
    assert not done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is (done.returncode == 0)
    return done.returncode, told["findings"]


def of(findings: list[dict[str, Any]], thing: str) -> dict[str, Any]:
    (found,) = (one for one in findings if one["thing"] == thing)
    return found


@pytest.fixture
def free() -> dict[str, str]:
    """Ports that nobody listens on, as settings."""
    first, second = free_ports(2)
    return {"VIRTFLOW_EXPORTER_LISTEN": f"127.0.0.1:{first}", "VIRTFLOW_PROCESSORS_LISTEN": f"127.0.0.1:{second}"}


@pytest.fixture
def mute_libvirt(tmp_path: Path) -> Iterator[str]:
    """The URI of a libvirt that takes the connection and never says a word, as a stopped one does."""
    path = tmp_path / "libvirt-sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(5)
        yield f"qemu+unix:///system?socket={path}"


def test_all_is_fine_once_the_topics_are_there(broker: Broker, hypervisor: str, free: dict[str, str]) -> None:
    """Before ``topics create`` each topic is found missing with that very command as the fix; after it exit code 0."""
    words = ("--bootstrap-servers", broker.address, "--topic-prefix", "check.", "--connect", hypervisor)
    code, before = check(*words, **free)
    assert code == 1
    missing = [one for one in before if not one["ok"]]
    assert [one["value"] for one in missing] == [f"check.{topic.name}" for topic in TOPICS]
    assert {one["fix"] for one in missing} == {"run `virtflow topics create`"}
    virtflow("topics", "create", "--bootstrap-servers", broker.address, "--topic-prefix", "check.")
    code, after = check(*words, **free)
    assert code == 0, after
    assert of(after, "broker")["detail"] == "answers"
    assert re.fullmatch(r"libvirt \d+\.\d+\.\d+, 0 VMs, statistics readable", of(after, "libvirt")["detail"])


def test_lines_for_people(hypervisor: str, free: dict[str, str]) -> None:
    done = virtflow("check", "--for", "node", "--connect", hypervisor, env=free)
    assert done.returncode == 0
    *lines, empty, last = done.stdout.splitlines()
    assert all(line.startswith("✓ ") for line in lines)
    assert (empty, last) == ("", f"all {len(lines)} fine")


@pytest.mark.parametrize(
    ("service", "things"),
    [
        ("producer", {"settings", "packages", "folder", "libvirt", "broker"}),
        ("processors", {"settings", "packages", "port", "broker"}),
        ("exporter", {"settings", "packages", "port", "broker"}),
        ("node", {"settings", "packages", "port", "libvirt"}),
    ],
)
def test_each_service_is_checked_for_what_it_needs(service: str, things: set[str], free: dict[str, str], broker: Broker) -> None:
    _, found = check("--for", service, "--connect", NOWHERE, "--bootstrap-servers", broker.address, **free)
    assert {one["thing"] for one in found} - {"topic"} == things


def test_libvirt_that_never_answers_is_given_up(mute_libvirt: str, free: dict[str, str]) -> None:
    """A stopped libvirtd never lets ``connect`` return; the check ends all the same."""
    code, found = check("--for", "node", "--connect", mute_libvirt, VIRTFLOW_LIBVIRT_CONNECT_TIMEOUT_SECONDS="0.5", **free)
    assert code == 1
    assert of(found, "libvirt")["detail"] == "no answer within 0.5 s"


@pytest.mark.parametrize(
    ("uri", "detail", "fix"),
    [
        ("qemu+unix:///system?socket=/nowhere/sock", "No such file or directory", "systemctl start libvirtd"),
        ("qemu+tcp://127.0.0.1:1/system", "Connection refused", "systemctl start libvirtd"),
        ("vbox+weather:///system", "", "--connect"),
        ("weather:///system", "no connection driver", "name a libvirt URI"),
        ("qemu:///sytem", "URI path", "name a libvirt URI"),
    ],
)
def test_libvirt_away(uri: str, detail: str, fix: str, free: dict[str, str]) -> None:
    code, found = check("--for", "node", "--connect", uri, **free)
    assert code == 1
    assert detail in of(found, "libvirt")["detail"]
    assert fix in of(found, "libvirt")["fix"]


def test_a_node_needs_no_packages_of_other_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the README's installation, of producer and exporter, nothing else is asked for."""
    asked: list[str] = []

    def noted(extra: str) -> Iterator[Finding]:
        asked.append(extra)
        return iter(())

    monkeypatch.setattr(probes, "packages", noted)
    monkeypatch.setattr(probes, "libvirt", lambda _: iter(()))
    assert all(finding.ok for finding in findings(("node",), None, {"exporter.listen": "127.0.0.1:0"}))
    assert asked == ["producer", "exporter"]


def test_broker_away(free: dict[str, str]) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    code, found = check("--for", "exporter", "--bootstrap-servers", address, **free)
    assert code == 1
    away = of(found, "broker")
    assert away["value"] == address
    assert away["detail"].startswith("does not answer: Connect to ipv4#")
    assert "Connection refused" in away["detail"]
    assert away["fix"] == "start the broker, or name another with --bootstrap-servers"


class Answers(BaseHTTPRequestHandler):
    """A service that answers everything with its server's ``code``, under its server's ``name``."""

    def version_string(self) -> str:
        return str(getattr(self.server, "name", "other"))

    def do_GET(self) -> None:
        self.send_response(getattr(self.server, "code", 200))
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the name of the overridden one
        del format, args


@pytest.fixture
def web() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("name", "ok"), [("other", False), ("virtflow", True)])
def test_port_taken(web: HTTPServer, name: str, ok: bool, free: dict[str, str]) -> None:  # noqa: FBT001
    """Another program's port is a problem, one of our own services on it is not."""
    web.name = name  # type: ignore[attr-defined]
    listen = f"127.0.0.1:{web.server_address[1]}"
    _, found = check("--for", "node", "--connect", NOWHERE, **{**free, "VIRTFLOW_EXPORTER_LISTEN": listen})
    port = of(found, "port")
    assert port["ok"] is ok
    assert port["value"] == listen
    assert ok or "another program listens there" in port["detail"]


@pytest.mark.parametrize(("code", "detail"), [(200, "answers"), (503, "answers /subjects with 503 Service Unavailable")])
def test_registry(web: HTTPServer, code: int, detail: str, free: dict[str, str], broker: Broker) -> None:
    web.code = code  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{web.server_address[1]}"
    _, found = check("--for", "exporter", "--bootstrap-servers", broker.address, VIRTFLOW_REGISTRY_URL=url, **free)
    assert of(found, "registry")["detail"] == detail
    assert of(found, "registry")["ok"] is (code == 200)


def test_registry_away(free: dict[str, str], broker: Broker) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    code, found = check("--for", "exporter", "--bootstrap-servers", broker.address, VIRTFLOW_REGISTRY_URL=url, **free)
    assert code == 1
    assert "Connection refused" in of(found, "registry")["detail"]
