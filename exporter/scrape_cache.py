"""Concurrent scrapes share one rendering.

While a rendering is in progress, further scrapes of the same kind wait for the next one and share it: five hundred concurrent scrapes
cost two renderings, and no scrape gets an answer that was begun before its request. Rendering runs in steps of a few
milliseconds, with other tasks in between. A bounded number of answers is kept for slow clients; the oldest one is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from isal import isal_zlib

HELD: Final = 4
"""Answers that are kept at once for clients which have not taken all of them."""

GZIP_WINDOW: Final = 31
"""zlib's window bits for a gzip header."""
GZIP_LEVEL: Final = 1
"""isal's level 1 makes the size of zlib's 6 at a twentieth of its cost."""

Key = tuple[frozenset[str], bool]
"""The metrics' names, and whether the answer is gzipped."""

Make = Callable[[frozenset[str]], Iterator[str]]


class Answer:
    """A rendered scrape: its bytes in chunks. ``dropped``: it was discarded because its clients were too slow."""

    __slots__ = ("chunks", "dropped", "readers", "size")

    def __init__(self) -> None:
        """Empty until it is rendered."""
        self.chunks: list[bytes] = []
        self.size = 0
        self.readers = 0
        self.dropped = False

    def drop(self) -> None:
        """Frees the bytes."""
        self.dropped = True
        self.chunks = []

    def __iter__(self) -> Iterator[bytes]:
        """The chunks, as long as it is not dropped."""
        at = 0
        while at < len(self.chunks):
            yield self.chunks[at]
            at += 1


class Renderings:
    """Renders answers with ``make``, which yields an exposition's text in chunks; one at a time."""

    def __init__(self, make: Make) -> None:
        """``make`` takes the metrics' names."""
        self._make = make
        self._turn = asyncio.Lock()
        self._next: dict[Key, tuple[Answer, asyncio.Task[None]]] = {}
        self._held: deque[Answer] = deque()

    async def answer(self, names: frozenset[str], *, gzip: bool) -> Answer:
        """An answer whose rendering began after this call; call ``release`` once it is sent."""
        key = (names, gzip)
        if key not in self._next:
            answer = Answer()
            self._next[key] = answer, asyncio.create_task(self._render(key, answer))
        answer, task = self._next[key]
        answer.readers += 1
        rendered = False
        try:
            await asyncio.shield(task)
            rendered = True
        finally:
            if not rendered:
                self.release(answer)
        return answer

    def release(self, answer: Answer) -> None:
        """Removes one reader; the last one frees the answer."""
        answer.readers -= 1
        if not answer.readers and answer in self._held:
            self._held.remove(answer)

    async def _render(self, key: Key, answer: Answer) -> None:
        async with self._turn:
            del self._next[key]
            names, gzip = key
            async for chunk in _encoded(self._make(names), gzip=gzip):
                answer.chunks.append(chunk)
                answer.size += len(chunk)
        self._held.append(answer)
        while len(self._held) > HELD:
            self._held.popleft().drop()


async def _encoded(chunks: Iterator[str], *, gzip: bool) -> AsyncIterator[bytes]:
    """The text as bytes, compressed with gzip on request; yields to other tasks after each chunk."""
    packer = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW) if gzip else None
    for text in chunks:
        chunk = text.encode()
        if packed := packer.compress(chunk) if packer else chunk:
            yield packed
        await asyncio.sleep(0)
    if packer:
        yield packer.flush()


def accepts_gzip(header: str) -> bool:
    """Whether an ``Accept-Encoding`` header allows gzip (source: RFC 9110, section 12.5.3)."""
    for item in header.lower().split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip() in {"gzip", "x-gzip", "*"}:
            weight = parameters.strip().removeprefix("q=").strip()
            return not weight or weight.strip("0.") != ""
    return False
