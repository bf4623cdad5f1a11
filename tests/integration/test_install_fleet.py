"""docs/install-fleet.md as it stands, block after block: packages, users, rights, services and Prometheus on a centre and two hypervisors.

The machines are bare Debian systems with their own systemd, ssh between them, and Debian's libvirt and QEMU on the hypervisors; the broker has
TLS, passwords and an authorizer. Then upgrade and way back. With ``--long`` alone.
"""

from __future__ import annotations

import re
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import bcrypt
import pytest
import yaml

from tests.contract.test_docs_code import expressions
from tests.support.debian_host import built_packages, next_build
from tests.support.doc_blocks import ROOT, Block, block, blocks_of
from tests.support.fleet_machines import BROKERS, CENTRE, HYPERVISORS, RELEASE, FleetMachines, fleet_machines
from tests.support.processors import eventually
from tests.support.prometheus import Prometheus

PAGE: Final = "docs/install-fleet.md"
BLOCKS: Final = list(blocks_of(PAGE, (ROOT / PAGE).read_text()))
ELSEWHERE: Final = {
    "sh packages": "tests/support/debian_host.py",
    "sh ansible": "tests/integration/test_ansible.py",
    "yaml inventory": "tests/integration/test_ansible.py",
}
"""Blocks that another test runs, by the words of their fences, and which."""
OTHERWISE: Final = {"replication = 3": "replication = 1"}
"""What differs from the page: one broker is all three."""
PASSWORD: Final = "of-prometheus"  # noqa: S105, of this test
VMS: Final = {"hv-1": ("web-1", "6f000000-0000-4000-8000-000000000001"), "hv-2": ("db-1", "6f000000-0000-4000-8000-000000000002")}
SERVICES: Final = ("processors", "processors@2", "exporter", "history")
SECONDS: Final = 120.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetMachines]:
    """The machines with what the page takes for granted: packages, certificates, names of hypervisors, and a VM on each."""
    folder = tmp_path_factory.mktemp("fleet")
    with fleet_machines(folder) as fleet:
        for package in built_packages(RELEASE).values():
            for file in (package, next_build(package, folder)):
                (fleet.work / file.name).write_bytes(file.read_bytes())
        authority, address = fleet.broker.authority, fleet.address(CENTRE)
        web = authority.issue("web", CENTRE, address)
        files = {
            "kafka-ca.pem": authority.file.read_text(),
            "exporter.pem": web.certificate.read_text(),
            "exporter.key": web.key.read_text(),
            "hypervisors": "".join(f"{name}\n" for name in HYPERVISORS),
            "admin.password": fleet.broker.passwords["admin"],
            "admin.properties": _properties(fleet),
        }
        for name, text in files.items():
            (fleet.work / name).write_text(text)
        for name, (vm, uuid) in VMS.items():
            fleet.start_vm(name, vm, uuid)
        yield fleet


def _properties(fleet: FleetMachines) -> str:
    """An administrator's settings for Kafka's own tools."""
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    return f"""security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config={module} required username="admin" password="{fleet.broker.passwords["admin"]}";
ssl.truststore.type=PEM
ssl.truststore.location={fleet.broker.authority.file}
"""


def words(one: Block) -> str:
    """A fence's words."""
    return " ".join([one.language, *one.tags])


def under(heading: str) -> list[Block]:
    """The page's blocks below a heading, in their order."""
    lines = (ROOT / PAGE).read_text().splitlines()
    begin = lines.index(f"## {heading}") + 1
    end = next((number for number, line in enumerate(lines[begin:], begin + 1) if line.startswith("## ")), len(lines) + 1)
    return [one for one in BLOCKS if begin < one.line < end]


def run(fleet: FleetMachines, one: Block) -> str:
    """Does what a block says: types its commands, or writes its file; what the commands say."""
    text = one.text
    for page, here in OTHERWISE.items():
        text = text.replace(page, here)
    if words(one) == "sh users":
        return fleet.here(text)
    if one.language == "sh":
        return fleet.typed(text)
    place = re.match(r"# (\S+)", text)
    assert place, f"{one}: its first line says which file it is"
    if one.tags == ("web.yml",):
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()
        text = re.sub(r"\$2y\$\S+", hashed, text)
    (fleet.work / place[1].lstrip("/") if not place[1].startswith("/") else fleet.centre.host.root / place[1][1:]).write_text(text)
    return ""


def follow(fleet: FleetMachines, heading: str) -> list[str]:
    """Does what the page says below a heading."""
    return [run(fleet, one) for one in under(heading) if words(one) not in ELSEWHERE]


def metrics(fleet: FleetMachines, user: str = f"prometheus:{PASSWORD}") -> tuple[int, str]:
    """What a client with a password gets from the exporter: status and text; 0 while nobody answers."""
    context: ssl.SSLContext = fleet.broker.authority.trusting()
    request = urllib.request.Request(f"https://{fleet.address(CENTRE)}:9177/metrics")
    request.add_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310, our own
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""
    except OSError:
        return 0, ""


def samples_of(fleet: FleetMachines) -> dict[str, float]:
    """When the newest sample of each VM was taken, by its name."""
    found = re.findall(r'^vm_sample_age_seconds\{[^}]*name="([^"]+)"[^}]*\} (\S+)$', metrics(fleet)[1], re.MULTILINE)
    return {name: time.time() - float(age) for name, age in found}


def goes_on(fleet: FleetMachines) -> None:
    """Newer samples of all VMs arrive than there are now."""
    before = samples_of(fleet)
    eventually(
        "newer samples of all VMs",
        lambda: (now := samples_of(fleet)).keys() == dict(VMS.values()).keys() and all(now[vm] > before.get(vm, 0) for vm in now),
        SECONDS,
    )


def versions(fleet: FleetMachines) -> dict[str, str]:
    """The build of each machine's package."""
    told = {CENTRE: fleet.centre.run("dpkg-query --show --showformat '${Version}' virtflow-centre")}
    for name, system in fleet.hypervisors.items():
        told[name] = system.run("dpkg-query --show --showformat '${Version}' virtflow-producer")
    return {name: version.partition("-")[2].partition("~")[0] for name, version in told.items()}


def running(fleet: FleetMachines) -> dict[str, str]:
    """The process of each service, by machine and part; fails where one does not run."""
    units = [(fleet.centre, part) for part in SERVICES] + [(system, "producer") for system in fleet.hypervisors.values()]
    pids = {f"{system.host.root.name} {part}": system.property(f"virtflow-{part}", "MainPID") for system, part in units}
    assert "0" not in pids.values(), pids
    return pids


def test_every_block_is_run_here_or_by_a_test_that_is_named() -> None:
    """No heading is left out, and whoever runs a block takes it from the page."""
    followed = {heading for heading in STEPS for _ in under(heading)}
    assert sorted(map(str, BLOCKS)) == sorted(str(one) for heading in followed for one in under(heading))
    for fence, test in ELSEWHERE.items():
        assert f'block("{fence}")' in (ROOT / test).read_text(), f"{test} does not run {fence}"


STEPS: Final = (
    "1. The packages",
    "2. Users of Kafka",
    "3. The centre",
    "4. Topics and rights",
    "5. The exporter's certificate and password",
    "6. Start the centre",
    "7. The hypervisors",
    "8. Prometheus",
    "Upgrade",
    "Back",
)


def test_the_page_installs_a_fleet(fleet: FleetMachines, tmp_path: Path) -> None:
    """From nothing to the metrics of both hypervisors' VMs over TLS, with a password and for nobody without; then Prometheus has them."""
    for heading in STEPS[:7]:
        follow(fleet, heading)
    eventually("both VMs at /metrics", lambda: samples_of(fleet).keys() == dict(VMS.values()).keys(), SECONDS)
    assert re.search(r'^vm_state\{[^}]*name="web-1"[^}]*\} 1$', metrics(fleet)[1], re.MULTILINE)
    assert metrics(fleet, "prometheus:wrong")[0] == 401
    for secret in (*fleet.broker.passwords.values(), PASSWORD):
        for system in fleet.systems.values():
            assert secret not in system.run("journalctl -q --no-pager; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '")
    assert not (fleet.work / "secrets").exists()
    scrape, query = under(STEPS[7])
    (job,) = yaml.safe_load(scrape.text)["scrape_configs"]
    etc = tmp_path / "prometheus"
    etc.mkdir()
    (etc / "virtflow-ca.pem").write_text(fleet.broker.authority.file.read_text())
    (etc / "virtflow.password").write_text(PASSWORD)
    targets = {job.pop("job_name"): [target for one in job.pop("static_configs") for target in one["targets"]]}
    program = fleet.program("named-prometheus", "prometheus", (etc, "/etc/prometheus"))
    prometheus = Prometheus(tmp_path / "data", targets, program=str(program))
    prometheus.scrape_settings = job
    with prometheus:
        (promql,) = expressions(query.text)
        eventually("both hypervisors at Prometheus", lambda: prometheus.value(promql) == len(HYPERVISORS), SECONDS)


def test_a_secret_is_stored_as_the_deploy_page_says(fleet: FleetMachines) -> None:
    """The password is typed, root alone can read it, and the producer runs anew with it."""
    system = fleet.hypervisors["hv-1"]
    stored = "/etc/credstore/virtflow-producer.kafka.sasl_password_file"
    password = system.run(f"cat {stored}")
    system.run(f"rm {stored}")
    first = system.property("virtflow-producer", "MainPID")
    system.host.write("root/typed", password)
    system.host.write("root/secret", block("sh secret"))
    system.run("bash -euo pipefail /root/secret < /root/typed")
    assert system.run(f"cat {stored}; stat -c '%U %a' {stored} /etc/credstore").split() == [password.strip(), "root", "600", "root", "700"]
    assert system.property("virtflow-producer", "MainPID") not in {first, "0"}
    goes_on(fleet)


def test_upgrade_and_way_back(fleet: FleetMachines) -> None:
    """Each as the page says: all machines have the other build, what ran runs anew, settings stay, and samples go on."""
    assert set(versions(fleet).values()) == {"1"}
    settings = {name: system.run("cat /etc/virtflow/*.toml") for name, system in fleet.systems.items()}
    for heading, build in (("Upgrade", "2"), ("Back", "1")):
        before = running(fleet)
        follow(fleet, heading)
        assert set(versions(fleet).values()) == {build}
        after = running(fleet)
        assert not set(before.items()) & set(after.items())
        goes_on(fleet)
        assert {name: system.run("cat /etc/virtflow/*.toml") for name, system in fleet.systems.items()} == settings


def test_the_broker_has_all_names_of_the_page() -> None:
    """In its certificate and on the network."""
    text = (ROOT / PAGE).read_text()
    assert set(re.findall(r"kafka-\d", text)) == set(BROKERS)
