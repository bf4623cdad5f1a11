"""Which sockets a scan finds, and how one is reached whose path is too long for an address. Real sockets, real folders."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from virtflow.producer.daemons import sockets
from virtflow.producer.daemons.sockets import PATH_BYTES, listens, scan, within_address

Listen = Callable[[Path], socket.socket]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Has somebody listen at a path."""
    opened: list[socket.socket] = []

    def at(path: Path) -> socket.socket:
        path.parent.mkdir(parents=True, exist_ok=True)
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.append(one)
        with within_address(str(path)) as address:
            one.bind(address)
        one.listen()
        return one

    yield at
    for one in opened:
        one.close()


def test_wildcards_stand_in_any_part_of_a_path(tmp_path: Path, listen: Listen) -> None:
    for pod in ("a", "b"):
        listen(tmp_path / pod / "root" / "run" / "virtqemud-sock")
    listen(tmp_path / "c" / "root" / "run" / "another-sock")
    (tmp_path / "a-file").touch()
    found = scan([f"{tmp_path}/*/root/run/virtqemud-sock"])
    assert sorted(one.path for one in found.sockets) == [f"{tmp_path}/{pod}/root/run/virtqemud-sock" for pod in ("a", "b")]
    assert {one.owner for one in found.sockets} == {os.getuid()}
    assert (found.denied, found.left_out, found.complete) == (0, 0, True)
    assert len(scan([f"{tmp_path}/?/root/*/*-sock", f"{tmp_path}/[a-b]/root/run/virtqemud-sock"]).sockets) == 3


def test_a_socket_that_several_paths_lead_to_is_found_once(tmp_path: Path, listen: Listen) -> None:
    listen(tmp_path / "1" / "sock")
    for process in ("2", "3"):
        (tmp_path / process).symlink_to(tmp_path / "1")
    (found,) = scan([f"{tmp_path}/*/sock"]).sockets
    seen = (tmp_path / "1" / "sock").stat()
    assert found.identity == (seen.st_dev, seen.st_ino)


def test_a_link_in_the_place_of_a_socket_and_anything_else_is_none(tmp_path: Path, listen: Listen) -> None:
    listen(tmp_path / "elsewhere" / "sock")
    for name in ("a", "b", "c"):
        (tmp_path / "pods" / name).mkdir(parents=True)
    (tmp_path / "pods" / "a" / "sock").symlink_to(tmp_path / "elsewhere" / "sock")
    (tmp_path / "pods" / "b" / "sock").touch()
    (tmp_path / "pods" / "c" / "sock").mkdir()
    assert scan([f"{tmp_path}/pods/*/sock"]).sockets == ()


def test_our_own_root_is_found_below_proc(tmp_path: Path, listen: Listen) -> None:
    """As each process of a pod leads to the pod's root; processes that are gone meanwhile are none."""
    listen(tmp_path / "sock")
    seen = (tmp_path / "sock").stat()
    assert [one.identity for one in scan([f"/proc/*/root{tmp_path}/sock"]).sockets] == [(seen.st_dev, seen.st_ino)]


def test_places_that_are_not_for_this_user_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()

    def refuse(path: str) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "lstat", refuse)
    assert scan([f"{tmp_path}/*/sock"]).denied == 1


@pytest.mark.parametrize(
    ("error", "denied", "complete"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), 1, True),
        (FileNotFoundError(errno.ENOENT, "No such file"), 0, True),
        (OSError(errno.EMFILE, "Too many open files"), 0, False),
    ],
)
def test_a_folder_that_can_not_be_listed_leaves_a_scan_incomplete_unless_it_is_gone_or_closed(
    *, error: OSError, denied: int, complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> list[str]:
        raise error

    monkeypatch.setattr(os, "scandir", fail)
    found = scan(["/pods/*/sock"])
    assert (found.denied, found.complete) == (denied, complete)


def test_more_sockets_than_are_used_are_counted(tmp_path: Path, listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        listen(tmp_path / str(number) / "sock")
    monkeypatch.setattr(sockets, "DAEMONS_MAX", 3)
    found = scan([f"{tmp_path}/*/sock"])
    assert (len(found.sockets), found.left_out) == (3, 2)


def test_a_socket_at_a_path_that_is_too_long_for_an_address_is_reached(tmp_path: Path, listen: Listen) -> None:
    path = tmp_path / ("x" * 100) / "virtqemud-sock"
    assert len(str(path)) > PATH_BYTES
    server = listen(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with within_address(str(path)) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        assert len(address) <= PATH_BYTES
        client.connect(address)
        server.accept()[0].close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert listens(str(path))


def test_a_short_path_is_used_as_it_is() -> None:
    with within_address("/run/libvirt/virtqemud-sock") as address:
        assert address == "/run/libvirt/virtqemud-sock"


def test_whether_somebody_listens(tmp_path: Path, listen: Listen) -> None:
    path = tmp_path / "sock"
    server = listen(path)
    assert listens(str(path))
    server.close()
    assert (path.exists(), listens(str(path))) == (True, False)
    path.unlink()
    assert not listens(str(path))
    assert not listens(str(tmp_path / ("y" * 120) / "sock"))


def test_a_socket_whose_queue_is_full_counts_as_listened_to(tmp_path: Path, listen: Listen) -> None:
    """As that of a daemon that stands still."""
    path = tmp_path / "sock"
    server = listen(path)
    server.listen(0)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(4)]
    try:
        full = 0
        for one in waiting:
            one.settimeout(0.0)
            try:
                one.connect(str(path))
            except BlockingIOError:
                full += 1
        assert full
        assert listens(str(path))
    finally:
        for one in waiting:
            one.close()
