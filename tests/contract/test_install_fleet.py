"""The page that installs a fleet: its settings, put where it says, are complete for each part, and its packages are those that are built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.debian_packages import PACKAGES, RELEASES, Release, control, debian_version, maintainer_script, units_of, without_binding
from tests.support.doc_blocks import ROOT, blocks_of
from virtflow.cli.checks.settings_check import contradictions
from virtflow.runtime import config_files
from virtflow.runtime.configuration import load
from virtflow.runtime.settings import Settings

PAGE = (ROOT / "docs" / "install-fleet.md").read_text()
PARTS = ("producer", "processors", "exporter", "history", "tap", "topics")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with the files of the page: settings, and a password for each user that it makes."""
    store = tmp_path / "credstore"
    store.mkdir()
    monkeypatch.setattr(config_files, "CREDENTIAL_STORE", store)
    for block in blocks_of("install-fleet.md", PAGE):
        if block.language == "toml":
            (tmp_path / block.tags[0]).write_text(block.text)
    (own,) = re.findall(r"/etc/credstore/virtflow-\$part\.(\S+)$", PAGE, re.MULTILINE)
    for part in re.search(r"^for part in (.+); do$", PAGE, re.MULTILINE)[1].split():  # type: ignore[index]
        (store / f"virtflow-{part}.{own}").write_text("secret")
        if not (tmp_path / f"{part}.toml").exists():  # "differ from this one in the name"
            (tmp_path / f"{part}.toml").write_text(f'[kafka]\nsasl_username = "virtflow-{part}"\n')
    return tmp_path


@pytest.mark.parametrize("part", PARTS)
def test_the_settings_of_the_page_are_complete(host: Path, part: str) -> None:
    """TLS, a user and a password for each part on the brokers, and nothing that contradicts."""
    settings = load(host, {}, part=part)
    assert list(contradictions(settings)) == []
    assert settings.kafka.security_protocol == "SASL_SSL"
    assert settings.kafka.sasl_username == f"virtflow-{part}"
    assert Path(settings.kafka.sasl_password_file).read_text() == "secret"


def test_what_others_reach_has_a_certificate_and_a_password(host: Path) -> None:
    settings = load(host, {}, part="exporter")
    assert settings.exporter.listen == "0.0.0.0:9177"
    assert settings.web.config_file == "/etc/virtflow/web.yml"
    assert load(host, {"VIRTFLOW_INSTANCE": "2"}, part="processors").processors.listen != Settings().processors.listen


def test_the_page_installs_what_is_built() -> None:
    """Names and versions of files are those of the builder, for the release that it names; the next build is newer."""
    named = set(re.findall(r"virtflow-\w+_[^ ]+?_amd64\.deb", PAGE + (ROOT / "docs" / "deploy.md").read_text()))
    release = RELEASES["bookworm"]
    assert named == {f"{name}_{debian_version(release, revision)}_amd64.deb" for name in PACKAGES for revision in (1, 2)}


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_a_package_runs_on_its_releases_python_alone(name: str, release: Release) -> None:
    """Its modules are compiled for one; of Debian's Python packages it needs libvirt's binding, on a hypervisor."""
    text = control(PACKAGES[name], release, 1, 1000)
    depends = re.search(r"^Depends: (.*)$", text, re.MULTILINE)[1].split(", ")  # type: ignore[index]
    python = {"bookworm": ("3.11", "3.12"), "trixie": ("3.13", "3.14")}[release.name]
    assert depends[:2] == [f"python3 (>= {python[0]})", f"python3 (<< {python[1]})"]
    assert [each for each in depends[2:] if each.startswith("python3-")] == (["python3-libvirt"] if name == "virtflow-producer" else [])
    assert "\n\n" not in text
    assert text.endswith("\n")


def test_every_unit_is_in_one_package() -> None:
    units = [unit.name for package in PACKAGES.values() for unit in units_of(package)]
    assert sorted(units) == sorted(unit.name for unit in (ROOT / "deploy" / "systemd").glob("*.service"))


@pytest.mark.parametrize("name", PACKAGES)
def test_running_units_are_found_templates_included(name: str) -> None:
    script = maintainer_script(PACKAGES[name], "postinst")
    patterns = re.search(r"for pattern in (.*); do", script)[1].split()  # type: ignore[index]
    assert patterns == [unit.name.replace("@.", "@*.") for unit in units_of(PACKAGES[name])]
    assert "enable" not in re.sub(r"^#.*$", "", script, flags=re.MULTILINE)


def test_the_locks_without_libvirts_binding() -> None:
    """It alone is left out, with its hashes."""
    for lock in ("requirements.lock", "requirements-producer.lock"):
        text = (ROOT / lock).read_text()
        names, fewer = (set(re.findall(r"^([\w.-]+)==", each, re.MULTILINE)) for each in (text, without_binding(text)))
        assert names - fewer == {"libvirt-python"}
        assert text.count("--hash") - without_binding(text).count("--hash") == 1
