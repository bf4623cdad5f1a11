"""Events on disk until the broker has them: written before they are sent, removed on the delivery report, replayed at start.

A folder of segments, each a header and entries of ``length, checksum, key length, key, message``. Entries are only ever added to
the newest segment; a segment whose entries have all been delivered is removed, the newest one emptied. What a run left behind is read again by the next
one: an event may then be sent twice, with the same identity, and never be lost.

What a journal can't take or can't read costs nothing but itself: ``append`` says no, ``problems`` counts why, and the caller goes on.

Writes go to the kernel at once, so a process that is killed loses nothing. When they reach the disk is the setting: ``always`` is
one fsync per batch before it is sent, ``second`` at most one a second (a power cut may cost what a second brought), ``never``.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

VERSION: Final = 1
MAGIC: Final = b"virtflow events "
HEADER: Final = MAGIC + struct.pack(">H", VERSION)
ENTRY: Final = struct.Struct(">IIH")
SEGMENT_BYTES: Final = 1 << 20
ENTRY_BYTES: Final = 1 << 20
"""No entry is larger: a length beyond it is damage."""
SUFFIX: Final = ".events"
SET_ASIDE: Final = ".newer"

FULL, BROKEN, TRUNCATED, NEWER = "journal_full", "journal_broken", "journal_truncated", "journal_newer"
_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_LOGGER: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A message with its key, and the segment that holds it; 0 where no segment does."""

    segment: int
    key: bytes
    message: bytes


@dataclass(slots=True)
class _Segment:
    """A file of the journal: its size, and how many of its entries the broker does not have yet."""

    path: Path
    size_bytes: int = len(HEADER)
    waiting: int = 0
    sealed: bool = False


@dataclass(slots=True)
class Journal:
    """One producer's journal. Not thread-safe: the sending thread alone uses it.

    ``problems`` counts what went wrong, by reason; ``trouble`` is the newest one in words, "" while all is well.
    """

    folder: Path
    limit_bytes: int
    problems: Counter[str] = field(default_factory=Counter)
    trouble: str = ""
    _segments: dict[int, _Segment] = field(default_factory=dict)
    _descriptor: int = -1
    _lock: int = -1
    _dirty: bool = False
    _unread: deque[int] = field(default_factory=deque)

    # -- the state

    @property
    def size_bytes(self) -> int:
        """Size of all segments."""
        return sum(segment.size_bytes for segment in self._segments.values())

    @property
    def waiting(self) -> int:
        """Entries that the broker does not have yet, as far as they have been read."""
        return sum(segment.waiting for segment in self._segments.values())

    def open(self) -> None:
        """Take the folder and find what an earlier run left; on failure the journal takes nothing, and says why."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            paths = sorted(path for path in self.folder.iterdir() if path.suffix == SUFFIX and path.stem.isdecimal())
        except OSError as error:
            self._release()
            self._failed(error, f"journal {self.folder} can't be used")
            return
        for path in paths:
            self._segments[int(path.stem)] = _Segment(path, size_bytes=path.stat().st_size, sealed=True)
        self._unread.extend(self._segments)

    @property
    def usable(self) -> bool:
        """Whether the folder is ours."""
        return self._lock >= 0

    def close(self) -> None:
        """Bring everything to the disk and let go."""
        self.sync()
        self._seal()
        self._release()

    # -- writing

    def append(self, key: bytes, message: bytes) -> Entry | None:
        """Write an entry; None when that can't be done, with the reason counted."""
        data = ENTRY.pack(len(message), zlib.crc32(key + message), len(key)) + key + message
        if not self.usable:
            self.problems[BROKEN] += 1
            return None
        if self.size_bytes + len(data) > self.limit_bytes:
            self._note(FULL, f"journal {self.folder} is full: {self.size_bytes} of {self.limit_bytes} bytes wait for the broker")
            return None
        try:
            number = self._current(len(data))
            self._write(number, data)
        except OSError as error:
            self._seal()
            self._failed(error, f"journal {self.folder} can't be written")
            return None
        segment = self._segments[number]
        segment.waiting += 1
        self.trouble = ""
        return Entry(number, key, message)

    def sync(self) -> None:
        """Have the disk confirm what was written; returns at once where nothing was."""
        if self._dirty and self._descriptor >= 0:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._failed(error, f"journal {self.folder} can't be brought to the disk")
        self._dirty = False

    def delivered(self, entry: Entry) -> None:
        """The broker has it: its segment goes when it was the last one."""
        segment = self._segments.get(entry.segment)
        if segment is None:
            return
        segment.waiting -= 1
        if segment.waiting > 0:
            return
        if segment.sealed:
            self._remove(entry.segment)
        elif self._descriptor >= 0:
            self._empty(segment)

    def _empty(self, segment: _Segment) -> None:
        """All of the newest segment is delivered: what is not there any more is not sent again after a restart."""
        try:
            os.ftruncate(self._descriptor, len(HEADER))
        except OSError as error:
            self._failed(error, f"journal segment {segment.path} can't be emptied")
            return
        segment.size_bytes = len(HEADER)

    def _current(self, size: int) -> int:
        newest = max(self._segments, default=0)
        segment = self._segments.get(newest)
        if segment is not None and not segment.sealed and segment.size_bytes + size <= max(SEGMENT_BYTES, size + len(HEADER)):
            return newest
        self._seal()
        number = newest + 1
        path = self.folder / f"{number:012d}{SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._segments[number] = _Segment(path, size_bytes=0)
        self._write(number, HEADER)
        return number

    def _write(self, number: int, data: bytes) -> None:
        """All of it or nothing: half an entry would hide those behind it."""
        segment = self._segments[number]
        written = 0
        try:
            written = os.write(self._descriptor, data)
        finally:
            if written < len(data):
                os.ftruncate(self._descriptor, segment.size_bytes)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        segment.size_bytes += len(data)
        self._dirty = True

    def _seal(self) -> None:
        """The newest segment takes no more; it goes at once when nothing in it waits."""
        if self._descriptor < 0:
            return
        self.sync()
        os.close(self._descriptor)
        self._descriptor = -1
        newest = max(self._segments)
        self._segments[newest].sealed = True
        if self._segments[newest].waiting == 0:
            self._remove(newest)

    def _remove(self, number: int) -> None:
        segment = self._segments.pop(number)
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            self._failed(error, f"journal segment {segment.path} can't be removed")

    # -- replaying

    def left_behind(self) -> Iterator[list[Entry]]:
        """What earlier runs left, a segment at a time, oldest first; what can't be read is counted and skipped."""
        while self._unread:
            number = self._unread.popleft()
            entries = self._read(number)
            segment = self._segments.get(number)
            if segment is None:
                continue
            segment.waiting = len(entries)
            if entries:
                yield entries
            else:
                self._remove(number)

    def _read(self, number: int) -> list[Entry]:
        path = self._segments[number].path
        try:
            data = path.read_bytes()
        except OSError as error:
            self._segments.pop(number)
            self._failed(error, f"journal segment {path} can't be read")
            return []
        if not data.startswith(HEADER):
            self._unknown(number, data)
            return []
        entries, at = [], len(HEADER)
        while at < len(data):
            found = _entry(data, at)
            if found is None:
                self._note(TRUNCATED, f"journal segment {path} is damaged at byte {at} of {len(data)}: what follows is lost")
                break
            key, message, at = found
            entries.append(Entry(number, key, message))
        return entries

    def _unknown(self, number: int, data: bytes) -> None:
        """A segment that this version did not write: one of a newer version is kept for it, anything else is damage."""
        path = self._segments[number].path
        version = struct.unpack_from(">H", data, len(MAGIC))[0] if data.startswith(MAGIC) and len(data) >= len(HEADER) else 0
        if version > VERSION:
            self._note(
                NEWER, f"journal segment {path} is of version {version}, newer than {VERSION}: quarantined as {path.name}{SET_ASIDE}"
            )
            self._segments.pop(number)
            try:
                path.rename(path.with_name(path.name + SET_ASIDE))
            except OSError as error:
                self._failed(error, f"journal segment {path} can't be renamed")
        elif data:
            self._note(TRUNCATED, f"journal segment {path} does not begin as one: {len(data)} bytes are lost")

    # -- trouble

    def _failed(self, error: OSError, what: str) -> None:
        reason = FULL if error.errno in _FULL_ERRORS else BROKEN
        self._note(reason, f"{what}: {error.strerror or error}")

    def _note(self, reason: str, words: str) -> None:
        self.problems[reason] += 1
        self.trouble = words
        _LOGGER.error("%s", words)

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _entry(data: bytes, at: int) -> tuple[bytes, bytes, int] | None:
    """Key, message and where the next entry begins; None where there is no whole entry."""
    if at + ENTRY.size > len(data):
        return None
    length, checksum, key_length = ENTRY.unpack_from(data, at)
    begin = at + ENTRY.size
    end = begin + key_length + length
    if length > ENTRY_BYTES or end > len(data) or zlib.crc32(data[begin:end]) != checksum:
        return None
    return data[begin : begin + key_length], data[begin + key_length : end], end
