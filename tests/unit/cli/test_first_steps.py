"""The advice that depends on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtflow.cli.first_steps import SETTINGS, SOCKETS, first_steps


@pytest.mark.parametrize("socket", SOCKETS)
def test_a_hypervisor(tmp_path: Path, socket: str) -> None:
    there = tmp_path / socket
    there.parent.mkdir(parents=True)
    there.touch()
    vms, settings = first_steps(tmp_path)
    assert "`virtflow snapshot`" in vms
    assert "`virtflow top --libvirt`" in vms
    assert "`virtflow config sample`" in settings


def test_a_machine_of_the_centre(tmp_path: Path) -> None:
    file = tmp_path / SETTINGS
    file.parent.mkdir(parents=True)
    file.touch()
    vms, settings = first_steps(tmp_path)
    assert "`virtflow top --url" in vms
    assert f"`virtflow check --config /{SETTINGS}`" in settings
