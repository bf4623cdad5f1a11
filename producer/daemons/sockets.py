"""Which libvirt daemons listen on this host: sockets by patterns of their paths. Reads folders, and asks no daemon.

A socket is known by its device and inode, since the root of each process of a container leads to the same one. A socket's address has
room for 107 bytes of a path; a longer one is reached by a folder that is opened, through ``/proc/self/fd``. Source: unix(7), proc(5).
"""

from __future__ import annotations

import fnmatch
import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

PATH_BYTES: Final = 107
DAEMONS_MAX: Final = 1024
"""Sockets that are used at most: whoever may create files that match must not make the producer open connections without end."""
_WILD: Final = frozenset("*?[")
_ABSENT: Final = (FileNotFoundError, NotADirectoryError, ProcessLookupError)
"""What a folder that is not there, or a process that has just ended, raises."""

Identity = tuple[int, int]
"""A socket's device and inode."""


@dataclass(frozen=True, slots=True)
class DaemonSocket:
    """A socket that a daemon listens on, or has listened on; ``owner`` is the user id of its file."""

    identity: Identity
    path: str
    owner: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan has found: each socket once, by the first path that leads to it.

    ``denied`` counts the places that this user may not look into, ``left_out`` the sockets beyond ``DAEMONS_MAX``. A scan that is not
    ``complete`` could not read a folder for another reason, and says nothing of the sockets that are missing.
    """

    sockets: tuple[DaemonSocket, ...] = ()
    denied: int = 0
    left_out: int = 0
    complete: bool = True


@dataclass(slots=True)
class _Finding:
    """A scan under way."""

    sockets: dict[Identity, DaemonSocket] = field(default_factory=dict)
    denied: int = 0
    left_out: int = 0
    complete: bool = True


def scan(patterns: Sequence[str]) -> Scan:
    """The sockets whose paths match one of the patterns. Links to sockets are none."""
    found = _Finding()
    for pattern in patterns:
        for path in _paths("", pattern.strip("/").split("/"), found):
            _look(path, found)
    return Scan(tuple(found.sockets.values()), found.denied, found.left_out, found.complete)


def _look(path: str, found: _Finding) -> None:
    try:
        seen = os.lstat(path)
    except PermissionError:
        found.denied += 1
        return
    except OSError:
        return
    identity = seen.st_dev, seen.st_ino
    if not stat.S_ISSOCK(seen.st_mode) or identity in found.sockets:
        return
    if len(found.sockets) >= DAEMONS_MAX:
        found.left_out += 1
    else:
        found.sockets[identity] = DaemonSocket(identity, path, seen.st_uid)


def _paths(folder: str, parts: Sequence[str], found: _Finding) -> Iterator[str]:
    """The paths below ``folder`` that the rest of a pattern may lead to; the last part need not be there."""
    fixed = next((number for number, part in enumerate(parts) if _WILD & frozenset(part)), len(parts))
    folder = "/".join((folder, *parts[:fixed]))
    if fixed == len(parts):
        yield folder
        return
    matches = re.compile(fnmatch.translate(parts[fixed])).match
    for name in _names(folder or "/", found):
        if matches(name):
            yield from _paths(f"{folder}/{name}", parts[fixed + 1 :], found)


def _names(folder: str, found: _Finding) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except PermissionError:
        found.denied += 1
    except _ABSENT:
        pass
    except OSError:
        found.complete = False
    return []


@contextmanager
def within_address(path: str) -> Iterator[str]:
    """The path of a socket in a form that an address has room for; valid within the block. Raises ``OSError`` where its folder is gone."""
    if len(os.fsencode(path)) <= PATH_BYTES:
        yield path
        return
    folder, name = os.path.split(path)
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{name}"
    finally:
        os.close(opened)


def listens(path: str) -> bool:
    """Whether a process listens on the socket, as far as that can be told; never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.0)
        try:
            with within_address(path) as address:
                probe.connect(address)
        except (ConnectionRefusedError, *_ABSENT):
            return False
        except OSError:  # its queue is full, or it is not for this user
            return True
    return True
