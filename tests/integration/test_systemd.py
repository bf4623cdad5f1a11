"""The units under a real systemd: the package's services start, get their secrets, are watched, started again, stopped and upgraded.

The first process of namespaces of its own is Debian 12's systemd, in a system with both packages: with ``--long`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.debian_host import DebianHost, SystemdHost, built_packages, next_build

NODE = '[libvirt]\nuri = "test:///default"\n[producer]\ninterval_seconds = 1\n'
METRICS = "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:9177/metrics').read().decode())\""
PASSWORD = "kafka.sasl_password_file"  # noqa: S105, a setting's name


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    """A host that has booted with both packages, and with settings for one node without Kafka."""
    built = built_packages("bookworm")
    host = DebianHost("bookworm", tmp_path_factory.mktemp("systemd") / "root")
    host.fetch(*built.values())
    host.install(*built.values())
    host.write("etc/virtflow/node.toml", NODE)
    with SystemdHost(host) as running:
        yield running


@pytest.fixture
def node(systemd: SystemdHost) -> Iterator[SystemdHost]:
    """The service `virtflow node`, started."""
    systemd.run("systemctl start virtflow-node")
    yield systemd
    systemd.run("systemctl stop virtflow-node; rm -rf /etc/systemd/system/virtflow-*.d; systemctl daemon-reload")


def drop_in(systemd: SystemdHost, unit: str, text: str) -> None:
    """What `systemctl edit` writes."""
    systemd.host.write(f"etc/systemd/system/{unit}.service.d/test.conf", f"[Service]\n{text}\n")
    systemd.run("systemctl daemon-reload")


def as_user(user: str) -> str:
    """What runs the rest of a command line as a user without any other group."""
    return f"setpriv --reuid {user} --regid {user} --clear-groups"


def environment_of(systemd: SystemdHost, unit: str) -> dict[str, str]:
    """The environment of a service's process; empty while there is none."""
    text = systemd.result(f"tr '\\0' '\\n' < /proc/{systemd.property(unit, 'MainPID')}/environ").stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def test_systemd_finds_nothing_wrong_with_the_installed_units(systemd: SystemdHost) -> None:
    """With their manual pages and programs, as they are installed."""
    units = systemd.run("ls /usr/lib/systemd/system/virtflow-*.service").split()
    assert len(units) == 8
    for unit in units:
        assert systemd.run(f"systemd-analyze verify --man=no {unit.replace('@.', '@one.')} 2>&1") == ""


def test_a_service_starts_serves_and_stops(node: SystemdHost) -> None:
    """It says itself when it is ready, keeps what it keeps in a folder that is its own, and ends by itself when it is told to."""
    assert node.property("virtflow-node", "ActiveState") == "active"
    assert re.search(r"^vm_state\{", node.run(METRICS), re.MULTILINE)
    assert node.run("stat -c '%U %a' /var/lib/virtflow/node") == "virtflow-node 700\n"
    assert node.run(f"stat -c %U /proc/{node.property('virtflow-node', 'MainPID')}").strip() == "virtflow-node"
    node.run("systemctl stop virtflow-node")
    assert node.property("virtflow-node", "Result") == "success"
    assert node.property("virtflow-node", "ExecMainStatus") == "0"


def test_a_service_that_hangs_is_started_again(node: SystemdHost) -> None:
    """Its signs of life stop; systemd ends it after ``WatchdogSec`` and starts another."""
    drop_in(node, "virtflow-node", "WatchdogSec=3")
    node.run("systemctl restart virtflow-node")
    first = node.property("virtflow-node", "MainPID")
    node.run(f"kill -STOP {first}")
    node.until(lambda: node.property("virtflow-node", "NRestarts") == "1", "started again")
    node.until(lambda: node.property("virtflow-node", "ActiveState") == "active", "ready again")
    assert node.property("virtflow-node", "MainPID") != first
    assert "atchdog" in node.run("journalctl -q --no-pager -u virtflow-node")


def test_a_bad_setting_is_in_the_journal(node: SystemdHost) -> None:
    """With its file, and what would be right."""
    node.host.write("etc/virtflow/node.toml", "[producer]\ninterval_second = 1\n")
    node.result("systemctl restart --no-block virtflow-node")
    said = "file /etc/virtflow/node.toml"
    node.until(lambda: said in node.run("journalctl -q --no-pager -u virtflow-node"), "the reason")
    node.host.write("etc/virtflow/node.toml", NODE)
    node.until(lambda: node.property("virtflow-node", "ActiveState") == "active", "ready")


def test_a_service_gets_its_own_secrets_and_no_others(systemd: SystemdHost) -> None:
    """Root's file alone in the store, its copy for the service's user alone; one that is not there is no fault."""
    for part in ("exporter", "processors"):
        systemd.host.write(f"etc/credstore/virtflow-{part}.{PASSWORD}", f"of {part}\n")
    systemd.run("chmod 700 /etc/credstore; chmod 600 /etc/credstore/*")
    systemd.run("systemctl start --no-block virtflow-exporter")
    systemd.until(lambda: "CREDENTIALS_DIRECTORY" in environment_of(systemd, "virtflow-exporter"), "the exporter's process")
    folder = environment_of(systemd, "virtflow-exporter")["CREDENTIALS_DIRECTORY"]
    place = f"/proc/{systemd.property('virtflow-exporter', 'MainPID')}/root{folder}"
    assert systemd.run(f"{as_user('virtflow-exporter')} ls {place}").split() == [PASSWORD]
    assert systemd.run(f"{as_user('virtflow-exporter')} cat {place}/{PASSWORD}") == "of exporter\n"
    assert systemd.result(f"{as_user('virtflow-processors')} cat {place}/{PASSWORD}").returncode
    systemd.run("systemctl stop virtflow-exporter; systemctl reset-failed; rm -r /etc/credstore")


def test_instances_of_a_template_have_settings_and_folders_of_their_own(systemd: SystemdHost) -> None:
    """Each its file after the part's; without a broker they start, and wait for it."""
    for name, port in (("a", 9191), ("b", 9192)):
        systemd.host.write(f"etc/virtflow/exporter@{name}.toml", f'[exporter]\nlisten = "127.0.0.1:{port}"\nshard = "1/2"\n')
        systemd.run(f"systemctl start --no-block virtflow-exporter@{name}")
        unit = f"virtflow-exporter@{name}"
        systemd.until(lambda unit=unit, name=name: environment_of(systemd, unit).get("VIRTFLOW_INSTANCE") == name, "its process")  # type: ignore[misc]
        assert systemd.run(f"stat -c %U /var/lib/virtflow/exporter@{name}").strip() == "virtflow-exporter"
    systemd.run("systemctl stop 'virtflow-exporter@*'; rm /etc/virtflow/exporter@*")


def test_an_upgrade_starts_what_runs_again_and_nothing_else(node: SystemdHost, tmp_path: Path) -> None:
    """A process never loads modules of another version; what was stopped stays so."""
    first = node.property("virtflow-node", "MainPID")
    newer = next_build(built_packages("bookworm")["virtflow-centre"], tmp_path)
    node.host.write("packages/newer", "")
    (node.host.root / "packages" / newer.name).write_bytes(newer.read_bytes())
    node.run(f"DEBIAN_FRONTEND=noninteractive dpkg --install /packages/{newer.name}")
    assert node.property("virtflow-node", "MainPID") != first
    assert node.property("virtflow-node", "ActiveState") == "active"
    assert node.property("virtflow-exporter", "ActiveState") == "inactive"


def test_an_upgrade_waits_for_no_broker(systemd: SystemdHost, tmp_path: Path) -> None:
    """Services that are not ready, because the broker is away or a setting is wrong, run the new version, and apt is done."""
    waiting = ("virtflow-processors", "virtflow-history", "virtflow-exporter@a")
    systemd.host.write("etc/virtflow/exporter@a.toml", "[exporter]\nlisten = 'nowhere'\n")
    systemd.run(f"systemctl enable {waiting[0]}; systemctl start --no-block {' '.join(waiting)}")
    before = {unit: main_pid(systemd, unit) for unit in waiting[:2]}
    newer = next_build(built_packages("bookworm")["virtflow-centre"], tmp_path)
    (systemd.host.root / "packages" / newer.name).write_bytes(newer.read_bytes())
    told = systemd.result(f"DEBIAN_FRONTEND=noninteractive timeout 150 dpkg --install /packages/{newer.name}")
    assert told.returncode == 0, told.stderr
    assert "virtflow-processors.service is not ready yet" in told.stderr
    assert systemd.run("dpkg-query --show --showformat '${db:Status-Status}' virtflow-centre") == "installed"
    for unit, pid in before.items():
        systemd.until(lambda unit=unit, pid=pid: systemd.property(unit, "MainPID") not in {pid, "0"}, f"another {unit}")  # type: ignore[misc]
    systemd.run(
        "systemctl disable virtflow-processors; systemctl stop 'virtflow-*'; systemctl reset-failed; rm /etc/virtflow/exporter@a.toml"
    )


def main_pid(systemd: SystemdHost, unit: str) -> str:
    """The process of a unit, once there is one."""
    systemd.until(lambda: systemd.property(unit, "MainPID") != "0", f"a process of {unit}")
    return systemd.property(unit, "MainPID")


def test_a_purge_stops_and_forgets_what_was_enabled(node: SystemdHost) -> None:
    """Last, because it takes the package away."""
    node.run("systemctl enable virtflow-node")
    pid = node.property("virtflow-node", "MainPID")
    node.run("dpkg --purge virtflow-centre")
    assert node.result(f"kill -0 {pid}").returncode
    assert node.result("ls /etc/systemd/system/multi-user.target.wants | grep virtflow").stdout == ""
    assert node.run("getent passwd | grep -c virtflow || true").strip() == "1"
