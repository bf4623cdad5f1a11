"""When the status of each VM was saved, by the files' times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from virtflow.producer.hypervisor.status_files import SYSTEM, StatusFiles, folder_of


class Folder:
    """A folder of status files whose times the test sets, and how often it was listed."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Empty."""
        self.path, self.listed = path, 0
        listing = StatusFiles._times

        def times(folder: Path) -> dict[str, float]:
            self.listed += 1
            return listing(folder)

        monkeypatch.setattr(StatusFiles, "_times", staticmethod(times))

    def save(self, name: str, at: float) -> None:
        """As libvirt does: a new file takes the old one's place."""
        fresh = self.path / f"{name}.new"
        fresh.touch()
        os.utime(fresh, (at, at))
        fresh.rename(self.path / name)
        os.utime(self.path, (at, at))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


def test_each_vm_s_time_by_its_name(folder: Folder) -> None:
    folder.save("a.xml", 100.0)
    folder.save("b.c.xml", 200.0)
    folder.save("a.pid", 300.0)
    assert StatusFiles(folder.path).read() == {"a": 100.0, "b.c": 200.0}


def test_the_folder_is_listed_only_after_a_change(folder: Folder) -> None:
    files = StatusFiles(folder.path, lambda: 1000.0)
    folder.save("a.xml", 100.0)
    assert [files.read() for _ in range(3)] == [{"a": 100.0}] * 3
    assert folder.listed == 1
    folder.save("a.xml", 200.0)
    assert files.read() == {"a": 200.0}
    assert folder.listed == 2


def test_what_changed_within_the_last_second_is_listed_again(folder: Folder) -> None:
    """The folder's time may be the same after one more change."""
    files = StatusFiles(folder.path, lambda: 100.5)
    folder.save("a.xml", 100.0)
    files.read()
    folder.save("b.xml", 100.0)
    assert files.read() == {"a": 100.0, "b": 100.0}


def test_nothing_is_said_where_the_folder_can_t_be_seen(folder: Folder) -> None:
    assert StatusFiles(None).read() is None
    files = StatusFiles(folder.path / "libvirt")
    assert files.read() is None
    (folder.path / "libvirt").mkdir()
    assert files.read() == {}
    (folder.path / "libvirt").rmdir()
    assert files.read() is None


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("qemu:///system", SYSTEM),
        ("qemu:///session", Path("/run/user/7/libvirt/qemu/run")),
        ("qemu+ssh://host/system", None),
        ("qemu:///system?socket=/proc/1/root/run/libvirt/virtqemud-sock", None),
        ("test:///default", None),
    ],
)
def test_whose_files_they_are(uri: str, path: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never those of this host for another daemon's VMs."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert folder_of(uri) == path
