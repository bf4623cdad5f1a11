"""Events on disk until the broker has them: written before they are sent, removed on the delivery report, replayed at start.

A folder of segments, whose bytes are those of ``producer/publishing/journal_records.py``. Entries are only ever added to the newest
segment; a segment whose entries have all been delivered is removed, the newest one emptied. What a run left behind is read again by
the next one: an event may then be sent twice, with the same identity, and never be lost.

What a journal can't take or can't read costs nothing but itself: ``append`` says no, ``problems`` counts why, and the caller goes on.
A folder that can't be used, because another process has its lock or for any other reason, can be opened again at any time.

Writes go to the kernel at once, so a process that is killed loses nothing. When they reach the disk is the setting: ``always`` is
one fsync per batch before it is sent, ``second`` at most one a second (a power cut may cost what a second brought), ``never``.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Final

from virtflow.producer.publishing.journal_records import HEADER, OVERHEAD, VERSION, read, record, version_of

SEGMENT_BYTES: Final = 1 << 20
SUFFIX: Final = ".events"
QUARANTINED: Final = ".other-version"

FULL, BROKEN, DAMAGED, OTHER_VERSION = "journal_full", "journal_broken", "journal_damaged", "journal_other_version"
_NAME: Final = re.compile(r"(\d{12})(?:-([0-9a-f]{8}))?" + re.escape(SUFFIX))
"""A segment's number, and the nonce of its checksums, which version 1 did not have."""
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
    """A file of the journal: its size, its next record's number, and how many of its entries the broker does not have yet.

    Version 1 has no nonce.
    """

    path: Path
    nonce: int | None
    size_bytes: int = 0
    number: int = 0
    waiting: int = 0
    sealed: bool = False


@dataclass(slots=True)
class Journal:
    """One producer's journal. Not thread-safe: the sending thread alone uses it.

    ``problems`` counts what went wrong, by reason; ``trouble`` is the newest one in words, "" while all is well. ``locked`` is
    whether another process had the folder when it was opened.
    """

    folder: Path
    limit_bytes: int
    problems: Counter[str] = field(default_factory=Counter)
    trouble: str = ""
    locked: bool = False
    _unusable: str = ""
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
        """Take the folder and find what an earlier run left; on failure the journal takes nothing until it is opened again.

        A failure that lasts is counted and logged once.
        """
        self.locked = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = dict(sorted(self._found(), key=itemgetter(0)))
        except OSError as error:
            self._release()
            self._not_opened(error)
            return
        if self._unusable:
            _LOGGER.info("journal %s is used from now on", self.folder)
        self._unusable = ""
        self._segments = found
        self._unread.extend(found)

    def _found(self) -> Iterator[tuple[int, _Segment]]:
        for path in self.folder.iterdir():
            name = _NAME.fullmatch(path.name)
            if name is not None:
                yield int(name[1]), _Segment(path, int(name[2], 16) if name[2] else None, path.stat().st_size, sealed=True)

    def _not_opened(self, error: OSError) -> None:
        self.locked = isinstance(error, BlockingIOError)
        why = "another process has its lock" if self.locked else error.strerror or error
        words = f"journal {self.folder} can't be used, and is tried again: {why}"
        if words == self._unusable:
            return
        self._unusable = self.trouble = words
        if self.locked:
            _LOGGER.warning("%s", words)
        else:
            self._note(_reason(error), words)

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
        if not self.usable:
            self.problems[BROKEN] += 1
            return None
        size = OVERHEAD + len(key) + len(message)
        if self.size_bytes + size > self.limit_bytes:
            self._note(FULL, f"journal {self.folder} is full: {self.size_bytes} of {self.limit_bytes} bytes wait for the broker")
            return None
        try:
            number = self._current(size)
            segment = self._segments[number]
            self._write(segment, record(segment.number, key, message, segment.nonce or 0))
        except OSError as error:
            self._seal()
            self._failed(error, f"journal {self.folder} can't be written")
            return None
        segment.number += 1
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
        segment.number = 0

    def _current(self, size: int) -> int:
        newest = next(reversed(self._segments), 0)  # they are in the order of their numbers
        segment = self._segments.get(newest)
        if segment is not None and not segment.sealed and segment.size_bytes + size <= max(SEGMENT_BYTES, size + len(HEADER)):
            return newest
        self._seal()
        number = newest + 1
        nonce = os.urandom(4)
        path = self.folder / f"{number:012d}-{nonce.hex()}{SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        segment = self._segments[number] = _Segment(path, int.from_bytes(nonce))
        self._write(segment, HEADER)
        return number

    def _write(self, segment: _Segment, data: bytes) -> None:
        """All of it or nothing: half an entry is damage for whoever reads it."""
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
        newest = next(reversed(self._segments))
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

    def left_behind(self) -> list[Entry]:
        """What earlier runs left in the next segment, oldest first; [] when all is read. What can't be read is counted and skipped."""
        while self._unread:
            number = self._unread.popleft()
            entries = self._read(number)
            segment = self._segments.get(number)
            if segment is None:
                continue
            segment.waiting = len(entries)
            if entries:
                return entries
            self._remove(number)
        return []

    def _read(self, number: int) -> list[Entry]:
        segment = self._segments[number]
        try:
            data = segment.path.read_bytes()
        except OSError as error:
            self._segments.pop(number)
            self._failed(error, f"journal segment {segment.path} can't be read")
            return []
        version = 1 if segment.nonce is None else version_of(data)
        if version not in {0, VERSION}:
            self._quarantine(number, version)
            return []
        found = read(data, segment.nonce or 0)
        if found.lost:
            self._note(DAMAGED, f"journal segment {segment.path} is damaged: {found.lost} of its events are lost", found.lost)
        return [Entry(number, key, message) for key, message in found.records]

    def _quarantine(self, number: int, version: int) -> None:
        """A segment of another version is kept for that version."""
        path = self._segments.pop(number).path
        kept = path.with_name(path.name + QUARANTINED)
        self._note(
            OTHER_VERSION,
            f"journal segment {path} is of version {version}, not {VERSION}: its events are not sent, it is kept as {kept.name}",
        )
        try:
            path.rename(kept)
        except OSError as error:
            self._failed(error, f"journal segment {path} can't be renamed")

    # -- trouble

    def _failed(self, error: OSError, what: str) -> None:
        self._note(_reason(error), f"{what}: {error.strerror or error}")

    def _note(self, reason: str, words: str, count: int = 1) -> None:
        self.problems[reason] += count
        self.trouble = words
        _LOGGER.error("%s", words)

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _reason(error: OSError) -> str:
    return FULL if error.errno in _FULL_ERRORS else BROKEN
