"""Many scrapes at once share a rendering; none gets an answer older than its question."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator

import pytest

from virtflow.exporter.scrape_cache import HELD, Renderings

NAMES = frozenset({"vm_state"})


class Source:
    """Counts how often it is rendered; each rendering says its number."""

    def __init__(self) -> None:
        """Not rendered yet."""
        self.renderings = 0
        self.begun = asyncio.Event()

    def make(self, names: frozenset[str]) -> Iterator[str]:
        self.renderings += 1
        self.begun.set()
        yield from (f"{self.renderings} ", *sorted(names))


def test_waiting_scrapes_share_the_next_rendering() -> None:
    """A hundred that come while one is under way cost one more, and see what was there after they came."""

    async def scenario() -> None:
        source = Source()
        renderings = Renderings(source.make)
        first = asyncio.create_task(renderings.answer(NAMES, gzip=False))
        await source.begun.wait()
        others = [asyncio.create_task(renderings.answer(NAMES, gzip=False)) for _ in range(100)]
        answers = await asyncio.gather(first, *others)
        assert b"".join(answers[0]) == b"1 vm_state"
        assert {b"".join(answer) for answer in answers[1:]} == {b"2 vm_state"}
        assert source.renderings == 2

    asyncio.run(scenario())


def test_answers_differ_by_names_and_encoding() -> None:
    """Gzip is valid and holds the same text."""

    async def scenario() -> None:
        renderings = Renderings(Source().make)
        plain, other, packed = await asyncio.gather(
            renderings.answer(NAMES, gzip=False), renderings.answer(frozenset({"vm_info"}), gzip=False), renderings.answer(NAMES, gzip=True)
        )
        assert (b"".join(plain), b"".join(other)) == (b"1 vm_state", b"2 vm_info")
        assert gzip.decompress(b"".join(packed)) == b"3 vm_state"
        assert packed.size == sum(map(len, packed))

    asyncio.run(scenario())


def test_only_so_many_answers_are_held_for_slow_clients() -> None:
    """The oldest is taken away, its bytes freed."""

    async def scenario() -> None:
        renderings = Renderings(Source().make)
        held = [await renderings.answer(NAMES, gzip=False) for _ in range(HELD + 1)]
        assert [answer.dropped for answer in held] == [True] + [False] * HELD
        assert list(held[0]) == []
        renderings.release(held[1])
        last = await renderings.answer(NAMES, gzip=False)
        assert not any(answer.dropped for answer in [*held[2:], last])

    asyncio.run(scenario())


def test_a_client_that_leaves_while_waiting_costs_nothing() -> None:
    """Its place in the rendering is given back."""

    async def scenario() -> None:
        renderings = Renderings(Source().make)
        gone = asyncio.create_task(renderings.answer(NAMES, gzip=False))
        stays = asyncio.create_task(renderings.answer(NAMES, gzip=False))
        await asyncio.sleep(0)
        gone.cancel()
        answer = await stays
        assert answer.readers == 1
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(scenario())
