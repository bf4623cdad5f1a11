"""A partition: records at offsets, from the first that retention has left to the end."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from operator import attrgetter

Headers = list[tuple[str, bytes | None]]
_offset = attrgetter("offset")


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it is stored; ``hidden`` are the marks of transactions, and what was aborted, which no consumer sees."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers | None = None
    hidden: bool = False
    epoch: int = 0


@dataclass(slots=True)
class Log:
    """Offsets only grow, but for an end that is lost; what is below ``low`` is deleted, and compaction leaves holes."""

    low: int = 0
    high: int = 0
    epoch: int = 0
    """How many leaders there were before the present one."""
    records: list[Stored] = field(default_factory=list)

    def append(self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers | None, *, hidden: bool = False) -> int:
        """Store a record; its offset."""
        self.records.append(Stored(self.high, key, value, timestamp_ms, headers, hidden, self.epoch))
        self.high += 1
        return self.high - 1

    def truncate(self, offset: int) -> None:
        """Delete what is below an offset, all for -1."""
        self.low = self.high if offset < 0 else max(self.low, min(offset, self.high))
        self.records = [record for record in self.records if record.offset >= self.low]

    def lose(self, offset: int) -> None:
        """Lose what is at an offset and above: it was on no other replica, or in no copy."""
        self.high = min(self.high, offset)
        self.records = [record for record in self.records if record.offset < offset]

    def compact(self) -> None:
        """Keep the newest record of each key; the first offset stays what it was."""
        newest = {record.key: record.offset for record in self.records}
        self.records = [record for record in self.records if newest[record.key] == record.offset]

    def next(self, offset: int) -> Stored | None:
        """The first record at or after an offset that a consumer sees."""
        for place in range(bisect_left(self.records, offset, key=_offset), len(self.records)):
            if not self.records[place].hidden:
                return self.records[place]
        return None

    def at(self, timestamp_ms: int) -> int | None:
        """The offset of the first record that is not older."""
        return next((record.offset for record in self.records if record.timestamp_ms >= timestamp_ms and not record.hidden), None)
