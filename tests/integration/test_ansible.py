"""The example role on two bare Debian systems: installs, changes nothing when it is run again, and only what differs. With ``--long`` alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from scripts.debian_root import with_apt
from tests.support.ansible import Control, Recap
from tests.support.certificates import Authority
from tests.support.debian_host import DebianHost, built_packages
from tests.support.doc_blocks import ROOT, block

ANSIBLE = ROOT / "deploy" / "ansible"
PLAYBOOK = ANSIBLE / "hypervisors.yml"
SECRET = "of-the-producer"  # noqa: S105, of this test
STORED = "etc/credstore/virtflow-producer.kafka.sasl_password_file"
ENABLED = "etc/systemd/system/multi-user.target.wants/virtflow-producer.service"


@dataclass
class Fleet:
    """Hypervisors by their names, and the machine that sets them up."""

    control: Control
    hosts: dict[str, DebianHost]
    folder: Path

    def write(self, **variables: object) -> None:
        """The page's inventory with the passwords of a vault, and variables that differ."""
        inventory = yaml.safe_load(block("yaml inventory"))
        inventory["hypervisors"]["vars"] |= {"vault_virtflow_producer_password": SECRET, **variables}
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A system of each release, without a network, and the files that the page names. Nothing is there that a check would ask."""
    folder, roots = tmp_path_factory.mktemp("control"), tmp_path_factory.mktemp("hosts")
    hosts = {}
    for name, release in {"hv-1": "bookworm", "hv-2": "trixie"}.items():
        package = built_packages(release)["virtflow-producer"]
        hosts[name] = DebianHost(release, roots / name)
        hosts[name].fetch(package)
        with_apt(hosts[name].root, "apt-get -qq -y --no-install-recommends install python3-apt")
        shutil.copy(package, folder)
    (folder / "virtflow.toml").write_text(block("toml virtflow.toml"))
    shutil.copy(Authority(folder / "tls").file, folder / "kafka-ca.pem")
    fleet = Fleet(Control(folder, roots), hosts, folder)
    fleet.write(virtflow_producer_check=False)
    return fleet


def test_it_is_well_written(fleet: Fleet) -> None:
    """By Ansible's own judgement and its linter's."""
    fleet.control.run("ansible-playbook", "--inventory", "inventory.yml", "--syntax-check", PLAYBOOK)
    fleet.control.run("ansible-lint", "--offline", "--profile", "production", ANSIBLE)


def test_it_installs_and_then_changes_nothing(fleet: Fleet) -> None:
    """Package, settings, secret and unit are there after the first run; the second finds nothing to do, a third only what is new."""
    one, every = block("sh ansible").splitlines()
    first, told = fleet.control.typed(one)
    assert first.keys() == {"hv-1"}
    others, more = fleet.control.typed(every)
    told += more
    assert {recap.failed for recap in (*first.values(), *others.values())} == {0}
    assert others["hv-1"] == Recap(0, 0)
    assert SECRET not in told
    for host in fleet.hosts.values():
        assert host.run("virtflow --version") == "virtflow 0.1.0\n"
        assert host.text(STORED) == SECRET
        assert host.run(f"stat -c '%U %a' /{STORED} /etc/credstore").split() == ["root", "600", "root", "700"]
        assert (host.root / ENABLED).is_symlink()
        assert "virtflow-producer" in host.run("virtflow config show --for producer")
    again, _ = fleet.control.play(PLAYBOOK)
    assert again == dict.fromkeys(fleet.hosts, Recap(0, 0))
    fleet.write(virtflow_producer_check=False, vault_virtflow_producer_password="second-secret")  # noqa: S106, of this test
    _, told = fleet.control.play(PLAYBOOK)
    assert "second-secret" not in told
    assert {host.text(STORED) for host in fleet.hosts.values()} == {"second-secret"}
    last, _ = fleet.control.play(PLAYBOOK)
    assert last == dict.fromkeys(fleet.hosts, Recap(0, 0))


def test_settings_that_are_wrong_are_not_written(fleet: Fleet) -> None:
    fleet.write(virtflow_producer_check=False, virtflow_producer_settings="[kafka]\nsasl_user = 1\n")
    with pytest.raises(AssertionError, match="sasl_user"):
        fleet.control.play(PLAYBOOK)
    for host in fleet.hosts.values():
        assert host.text("etc/virtflow/producer.toml") == '[kafka]\nsasl_username = "virtflow-producer"\n'
