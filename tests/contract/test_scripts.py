"""The scripts' promises: lock files that fit the project, and settings of `scripts/up` that the services accept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.up_pipeline import Pipeline, Ports, Source, choose_source, free_ports, welcome, write_scrape_config, write_settings
from virtflow.runtime.configuration import load

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
LOCKS = ("requirements.lock", "requirements-producer.lock", "requirements-dev.lock")
PYTHON = sys.executable


def run(command: list[str], variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command run in the checkout, to its end."""
    environment = {**os.environ, **(variables or {})}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def pinned(lock: str) -> dict[str, Version]:
    """Every package of a lock file with its version."""
    return {
        canonicalize_name(match[1]): Version(match[2])
        for match in re.finditer(r"^([\w.-]+)==([\w.!]+)", (ROOT / lock).read_text(), re.MULTILINE)
    }


def required(extras: list[str]) -> Iterator[Requirement]:
    """What the project's description asks for with these extras, extras of its own resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    yield from map(Requirement, project["dependencies"])
    for extra in extras:
        for text in project["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if requirement.name == "virtflow":
                yield from required(sorted(requirement.extras))
            else:
                yield requirement


@pytest.mark.parametrize(("lock", "extras"), list(zip(LOCKS, (["all"], ["producer"], ["all", "dev"]), strict=True)))
def test_locks_pin_what_the_project_asks_for(lock: str, extras: list[str]) -> None:
    """Each requirement is pinned to a version that it allows, every line has hashes, and no address of an index is in it."""
    versions = pinned(lock)
    for requirement in required(extras):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert text.count("--hash=sha256:") >= len(versions)


def test_what_builds_the_wheel_is_pinned() -> None:
    """Images and packages are built with it, and with nothing newer."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    versions = pinned("requirements-build.lock")
    assert {requirement.name for requirement in map(Requirement, build)} == set(versions)
    assert all(versions[requirement.name] in requirement.specifier for requirement in map(Requirement, build))
    assert "://" not in (ROOT / "requirements-build.lock").read_text()


def test_locks_agree() -> None:
    """What is tested is what runs."""
    everything = pinned("requirements.lock")
    assert everything.items() <= pinned("requirements-dev.lock").items()
    assert pinned("requirements-producer.lock").items() <= everything.items()


def test_the_producers_lock_holds_nothing_of_the_centre() -> None:
    """A hypervisor installs what it needs."""
    assert not {"aiohttp", "faust-streaming", "isal", "prometheus-client", "aiokafka"} & set(pinned("requirements-producer.lock"))


def test_the_source_of_vms_and_its_reason(tmp_path: Path) -> None:
    """Simulated nodes where libvirt does not answer, with libvirt's own words; what was asked for where something was."""
    chosen = choose_source("auto", f"qemu+unix:///system?socket={tmp_path}/none", needs_vms=False)
    assert chosen.command == "simulate"
    assert "does not answer" in chosen.why
    assert "No such file" in chosen.why
    assert choose_source("auto", "test:///default", needs_vms=True).command == "producer"
    assert choose_source("libvirt", "any", needs_vms=True).command == "producer"
    assert choose_source("simulator", "any", needs_vms=False).command == "simulate"


def test_the_settings_that_up_writes_are_good(tmp_path: Path) -> None:
    """The services' own loader takes the file, and every value arrives."""
    ports = free_ports()
    settings = load(write_settings(tmp_path, ports, 2.5, "test:///default"), {}, {})
    assert settings.kafka.bootstrap_servers == f"127.0.0.1:{ports.kafka}"
    assert settings.exporter.listen == f"127.0.0.1:{ports.exporter}"
    assert settings.processors.listen == f"127.0.0.1:{ports.processors}"
    assert settings.history.serve_listen == f"127.0.0.1:{ports.history_serve}"
    assert settings.producer.interval_seconds == 2.5
    assert settings.libvirt.uri == "test:///default"
    assert Path(settings.producer.journal_folder).is_relative_to(tmp_path)


def test_the_scrape_configuration_that_up_writes_is_good(tmp_path: Path) -> None:
    """Prometheus takes it, with these addresses and this interval."""
    ports = free_ports()
    file = write_scrape_config(tmp_path, ports, 1.0)
    done = run(["promtool", "check", "config", str(file)])
    assert done.returncode == 0, done.stdout + done.stderr
    text = file.read_text()
    assert f"127.0.0.1:{ports.exporter}" in text
    assert f"127.0.0.1:{ports.processors}" in text
    assert f"127.0.0.1:{ports.history}" in text
    assert f"127.0.0.1:{ports.history_serve}" in text
    assert ":9180" not in text
    assert "scrape_interval: 1s" in text
    assert "15s" not in text


def test_the_version_has_release_notes_that_a_user_reads() -> None:
    """Short, in the parts of Keep a Changelog; a version without a section has none."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    notes, none = (
        subprocess.run([SCRIPTS / "release-notes", number], capture_output=True, text=True, check=False) for number in (version, "9.9.9")
    )
    assert set(re.findall(r"^### (.*)$", notes.stdout, re.MULTILINE)) >= {"Added", "Security"}
    assert len(notes.stdout.splitlines()) < 60
    assert (none.returncode, none.stdout) == (1, "")


def test_the_card_of_up_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Short paths, and no more lines than a terminal has."""
    monkeypatch.chdir(tmp_path)
    card = welcome(Pipeline(tmp_path / ".virtflow", Ports(), 5.0, Source("simulate", "simulated nodes"), "qemu:///system")).splitlines()
    assert len(card) <= 20
    assert [line for line in card if len(line) > 80 and "activate" not in line] == []


def test_nothing_is_built_with_tools_that_no_lock_pins() -> None:
    """Where pip builds from the source, it takes the tools that are there, which came by their hashes: not the newest of an index."""
    words = ["git", "grep", "-hE", r"pip\S* install .*--no-deps", "--", "docs", "scripts", "deploy", "*.md"]
    lines = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    from_source = [line for line in lines if "--no-index" not in line]
    assert len(from_source) == 4
    assert [line for line in from_source if "--no-build-isolation" not in line] == []
