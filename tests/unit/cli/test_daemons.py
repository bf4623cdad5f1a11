"""What ``check`` and ``doctor`` say of the daemons that ``libvirt.discover`` names, where there are none or none that answers."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from virtflow.cli.checks import daemons, doctor, probes, settings_check
from virtflow.cli.checks.findings import Finding
from virtflow.runtime.settings import Guest, Libvirt, Settings


def discovering(folder: Path, *, status: bool = False) -> Settings:
    """Settings that look for sockets below the folder."""
    return Settings(libvirt=Libvirt(discover=[f"{folder}/*/sock"], connect_timeout_seconds=5.0, migration_status=status))


def checked(folder: Path) -> list[Finding]:
    """What ``virtflow check`` finds of libvirt."""
    return list(probes.libvirt(discovering(folder)))


@pytest.fixture
def deserted(tmp_path: Path) -> Path:
    """A folder with the sockets of two daemons that have ended."""
    for pod in ("a", "b"):
        (tmp_path / pod).mkdir()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / pod / "sock"))
    return tmp_path


def test_no_daemon_is_a_warning_since_no_vm_may_run(tmp_path: Path) -> None:
    (found,) = checked(tmp_path)
    assert (found.ok, found.warning, found.value) == (True, True, f"{tmp_path}/*/sock")
    assert "no daemon is found" in found.detail


def test_places_that_are_closed_to_this_user_are_wrong(deserted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> os.stat_result:
        raise PermissionError(path)

    monkeypatch.setattr(os, "lstat", refuse)
    (found,) = checked(deserted)
    assert not found.ok
    assert "2 places are not for this user to see" in found.detail
    assert "SYS_PTRACE" in found.fix


def test_each_daemon_that_does_not_answer_is_named(deserted: Path) -> None:
    found = checked(deserted)
    assert sorted(one.value for one in found) == [f"{deserted}/{pod}/sock" for pod in ("a", "b")]
    assert all(not one.ok and "Connection refused" in one.detail for one in found)


def test_of_many_that_do_not_answer_some_are_named_and_the_rest_is_counted() -> None:
    found = list(daemons.unreached([(f"/{number}", "refused") for number in range(25)]))
    assert len(found) == daemons.SHOWN + 1
    assert (found[-1].value, found[-1].detail) == ("5", "more do not answer")


def test_the_doctor_names_them_too_and_has_nothing_to_say_of_vms(deserted: Path) -> None:
    examined, found = daemons.examine(discovering(deserted))
    assert sorted(one.value for one in found) == [f"{deserted}/{pod}/sock" for pod in ("a", "b")]
    assert list(doctor.of_daemons(examined)) == []


def test_settings_of_a_single_daemon_contradict_many(tmp_path: Path) -> None:
    settings = Settings(libvirt=discovering(tmp_path, status=True).libvirt, guest=Guest(enabled=True))
    assert [one.value for one in settings_check.contradictions(settings)] == ["guest", "libvirt.migration_status"]
    assert list(settings_check.contradictions(discovering(tmp_path))) == []
