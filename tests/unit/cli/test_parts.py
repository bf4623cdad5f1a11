"""A part whose packages are not installed is named with the command that installs it; a defect of ours is not hidden."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from virtflow.cli.parts import install_command, part
from virtflow.schemas.errors import EnvironmentProblemError


def test_missing_package_names_the_extra() -> None:
    with pytest.raises(EnvironmentProblemError, match=r"package no_such_package: not installed; .* pip install 'virtflow\[exporter\]'"):
        part("no_such_package", "exporter")


@pytest.mark.parametrize(
    ("extra", "missing", "command"),
    [
        ("producer", ["confluent_kafka", "libvirt"], "apt-get install virtflow-producer"),
        ("producer", ["libvirt"], "apt-get install python3-libvirt"),
        ("exporter", ["isal"], "apt-get install virtflow-centre"),
    ],
)
def test_what_a_debian_package_lacks_is_installed_by_apt(
    extra: str, missing: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is to change the environment of a package by pip."""
    monkeypatch.setattr(sys, "prefix", "/usr/lib/virtflow/producer")
    assert install_command(extra, missing) == command
    with pytest.raises(EnvironmentProblemError, match="install it with apt-get install virtflow-centre"):
        part("no_such_package", "exporter")


def test_missing_package_inside_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part_of_a_test.py").write_text("import no_such_package.inner\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentProblemError, match="package no_such_package: not installed"):
        part("part_of_a_test", "processors")


def test_a_module_of_ours_that_is_missing_is_a_defect() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"virtflow\.producer\.nothing"):
        part("virtflow.producer.nothing", "producer")
