"""A host's disk under the journal: what ``os``, ``fcntl`` and ``pathlib`` do there, with kills, power cuts, full and broken disks.

What was written is there for every later process of the host. A power cut keeps what was brought to the disk, and of what was not any part:
a file's end that is missing, or full of zeros, or cut in the middle of a record; a removed file that is there again.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any, Final

from tests.simulation.machine import here
from tests.support.virtual_time.kernel import Kernel, Process

LEAST_DESCRIPTOR: Final = 1_000


@dataclass(slots=True, eq=False)
class Node:
    """A file: its bytes as processes see them, and as the disk has them for sure (None: not even its name)."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes | None = None
    locked_by: int = 0


@dataclass(slots=True)
class _Open:
    node: Node
    process: Process


class Disk:
    """One host's files."""

    def __init__(self, random: Random) -> None:
        """Empty; ``random`` decides what a power cut leaves."""
        self.nodes: dict[str, Node] = {}
        self._removed: dict[str, Node] = {}
        self.chance = random
        self._open: dict[int, _Open] = {}
        self._next = LEAST_DESCRIPTOR
        self.full = False
        self.broken = False
        """Whether ``fsync`` fails."""

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(len(node.data) for node in self.nodes.values())

    # -- what goes wrong

    def let_go(self, process: Process) -> None:
        """A process has ended: its files are closed, and its locks free."""
        for descriptor, opened in list(self._open.items()):
            if opened.process is process:
                self.close(descriptor)

    def lose_power(self) -> int:
        """What was not brought to the disk may be lost; how many files were torn."""
        torn = 0
        for path, node in list(self.nodes.items()):
            kept = self._kept(node)
            torn += kept is None or kept != bytes(node.data)
            if kept is None:
                del self.nodes[path]
                continue
            node.data = bytearray(kept)
            node.durable = bytes(kept)
        for path, node in self._removed.items():
            if node.durable is not None and path not in self.nodes and self.chance.random() < 0.5:
                node.data = bytearray(node.durable)
                self.nodes[path] = node
        self._removed.clear()
        self._open.clear()
        for node in self.nodes.values():
            node.locked_by = 0
        return torn

    def _kept(self, node: Node) -> bytes | None:
        if node.durable is None:
            return None if self.chance.random() < 0.3 else self._torn(b"", bytes(node.data))
        if not node.data.startswith(node.durable):  # it was emptied meanwhile
            return node.durable if self.chance.random() < 0.5 else bytes(node.data)
        return self._torn(node.durable, bytes(node.data))

    def _torn(self, durable: bytes, data: bytes) -> bytes:
        """What there is for sure, with some of what was written behind it."""
        place = self.chance.randint(len(durable), len(data))
        match self.chance.randrange(3):
            case 0:
                return data[:place]
            case 1:
                return data[:place] + bytes(len(data) - place)
            case _:
                return data

    # -- os and fcntl

    def open(self, process: Process, path: str, flags: int) -> int:
        """``os.open``."""
        if path not in self.nodes:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.nodes[path] = Node()
            self._removed.pop(path, None)
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._next += 1
        self._open[self._next] = _Open(self.nodes[path], process)
        return self._next

    def _node(self, descriptor: int) -> Node:
        opened = self._open.get(descriptor)
        if opened is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return opened.node

    def write(self, descriptor: int, data: bytes) -> int:
        """``os.write``; a full disk takes a part, or nothing."""
        node = self._node(descriptor)
        if self.full:
            part = self.chance.randrange(len(data))
            if not part:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            node.data += data[:part]
            return part
        node.data += data
        return len(data)

    def fsync(self, descriptor: int) -> None:
        """``os.fsync``."""
        node = self._node(descriptor)
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        node.durable = bytes(node.data)

    def ftruncate(self, descriptor: int, length: int) -> None:
        """``os.ftruncate``."""
        del self._node(descriptor).data[length:]

    def close(self, descriptor: int) -> None:
        """``os.close``."""
        node = self._node(descriptor)
        del self._open[descriptor]
        if node.locked_by == descriptor:
            node.locked_by = 0

    def flock(self, descriptor: int, how: int) -> None:
        """``fcntl.flock``, of which only the exclusive lock that does not wait is used."""
        assert how == fcntl.LOCK_EX | fcntl.LOCK_NB
        node = self._node(descriptor)
        if node.locked_by not in {0, descriptor}:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        node.locked_by = descriptor

    def remove(self, path: str) -> None:
        """``os.unlink``."""
        node = self.nodes.pop(path, None)
        if node is not None:
            self._removed[path] = node

    def rename(self, path: str, to: str) -> None:
        """``os.rename``."""
        self.nodes[to] = self.nodes.pop(path)


class Files:
    """The names of ``os``, ``fcntl`` and ``pathlib`` on the disk of the host whose process asks; each is a step."""

    def __init__(self, kernel: Kernel) -> None:
        """On this kernel."""
        self._kernel = kernel

    def names(self) -> dict[str, Callable[..., Any]]:
        """Those of ``os``."""
        disk = ("write", "fsync", "ftruncate", "close")
        return {"open": self._opened, **{name: self._stepped(name) for name in disk}}

    def flock(self, descriptor: int, how: int) -> None:
        """``fcntl.flock``."""
        self._kernel.step()
        self._disk.flock(descriptor, how)

    @property
    def _disk(self) -> Disk:
        return here(self._kernel).disk

    def _opened(self, path: object, flags: int, mode: int = 0o777) -> int:
        del mode
        self._kernel.step()
        return self._disk.open(self._kernel.process, str(path), flags)

    def _stepped(self, name: str) -> Callable[..., Any]:
        def done(*args: Any) -> Any:  # noqa: ANN401, as the function has it
            self._kernel.step()
            result = getattr(self._disk, name)(*args)
            self._kernel.note(name, *args)
            self._kernel.step()
            return result

        return done

    def path(self, words: object) -> SimulatedPath:
        """``pathlib.Path``."""
        return SimulatedPath(self._kernel, str(words))


class SimulatedPath:
    """What the journal uses of ``pathlib.Path``."""

    def __init__(self, kernel: Kernel, words: str) -> None:
        """Of the host whose process asks."""
        self._kernel = kernel
        self._words = words

    @property
    def name(self) -> str:
        """The last part."""
        return self._words.rpartition("/")[2]

    @property
    def _disk(self) -> Disk:
        return here(self._kernel).disk

    def __str__(self) -> str:
        """All of it."""
        return self._words

    def __truediv__(self, name: str) -> SimulatedPath:
        """Something below it."""
        return SimulatedPath(self._kernel, f"{self._words}/{name}")

    def with_name(self, name: str) -> SimulatedPath:
        """Something beside it."""
        return SimulatedPath(self._kernel, f"{self._words.rpartition('/')[0]}/{name}")

    def mkdir(self, *, parents: bool, exist_ok: bool) -> None:
        """Folders are there."""
        del parents, exist_ok
        self._kernel.step()

    def iterdir(self) -> Iterator[SimulatedPath]:
        """The files below, in no order."""
        self._kernel.step()
        found = [path for path in self._disk.nodes if path.startswith(f"{self._words}/")]
        self._kernel.random.shuffle(found)
        return iter([SimulatedPath(self._kernel, path) for path in found])

    def stat(self) -> Any:  # noqa: ANN401, the part that is used
        """Its size."""
        return SimpleNamespace(st_size=len(self._node().data))

    def read_bytes(self) -> bytes:
        """Its bytes."""
        self._kernel.step()
        return bytes(self._node().data)

    def unlink(self, *, missing_ok: bool) -> None:
        """Remove it."""
        del missing_ok
        self._kernel.step()
        self._disk.remove(self._words)

    def rename(self, to: SimulatedPath) -> None:
        """Give it another name."""
        self._kernel.step()
        self._disk.rename(self._words, str(to))

    def _node(self) -> Node:
        node = self._disk.nodes.get(self._words)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return node
