"""A VM's curves from the history server, with what keeps it and this process from too much work.

The same question is asked once at a time and its answer kept for a short while; a server that does not answer is left alone for a
moment; and beyond some waiting questions further ones are refused at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from virtflow.exporter.long_history.client import AT_ONCE, TOO_SLOW, UNAVAILABLE, HistoryError, HistoryServer, Values
from virtflow.exporter.long_history.curves import BY_NAME, KNOWN_AT_ALL, promql
from virtflow.exporter.long_history.periods import Period, Span, of_span, since_first

KEPT_SECONDS: Final = 60.0
"""How long an answer counts as new."""
KEPT: Final = 512
"""Answers that are kept, each of at most 2,000 points."""
WAITING: Final = 64
"""Questions that are asked or wait, at most: the curves of eight pages."""
PAUSE_SECONDS: Final = 10.0
"""How long a server that has not answered is not asked again."""


class Vm(NamedTuple):
    """Whose history is asked for: its UUID, its project as history servers name it ("" for none), and its sampling interval in seconds."""

    uuid: str
    project: str
    interval_seconds: float


class Curves(NamedTuple):
    """Curves over the same points."""

    period: Period
    values: dict[str, Values]


class LongHistory:
    """The history of all VMs. Belongs to the event loop."""

    def __init__(self, server: HistoryServer, now: Callable[[], float]) -> None:
        """``now`` is a clock that never goes back."""
        self._server = server
        self._now = now
        self._kept: OrderedDict[tuple[str, ...], tuple[float, Values]] = OrderedDict()
        self._asked: dict[tuple[str, ...], asyncio.Task[Values]] = {}
        self._failed: tuple[float, HistoryError] | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._stopping = False

    async def curve(self, vm: Vm, name: str, period: Period) -> Values:
        """One curve; raises ``HistoryError``."""
        return await self._values(vm, BY_NAME[name].expression, period)

    async def curves(self, vm: Vm, names: Sequence[str], span: Span, wall: float) -> Curves:
        """Several curves of a range that ends at ``wall``, within one time limit; raises ``HistoryError``."""
        try:
            async with asyncio.timeout(self._server.seconds):
                period = await self._period(vm, span, wall)
                found = await asyncio.gather(*(self.curve(vm, name, period) for name in names))
        except TimeoutError as error:
            raise self._left_alone(self._too_slow()) from error
        return Curves(period, dict(zip(names, found, strict=True)))

    def stop(self) -> None:
        """Ends what is under way: the service stops, and nobody waits for a history any longer."""
        self._stopping = True
        for task in self._asked.values():
            task.cancel()

    async def close(self) -> None:
        """Lets the connections go."""
        self.stop()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
        await self._server.close()

    async def _period(self, vm: Vm, span: Span, wall: float) -> Period:
        period = of_span(span, wall)
        if span.seconds:
            return period
        return since_first(period, await self._values(vm, KNOWN_AT_ALL, period), wall)

    async def _values(self, vm: Vm, expression: str, period: Period) -> Values:
        if self._server.by_project and not vm.project:
            raise HistoryError("the history is asked by project, and this VM has none that is known", 404)
        words = promql(expression, vm.uuid, period.window(vm.interval_seconds))
        key = (words, vm.project, *map(str, period))
        kept = self._kept.get(key)
        if kept is not None and self._now() < kept[0]:
            return kept[1]
        self._leave_alone()
        if self._stopping:
            raise HistoryError("this service stops", UNAVAILABLE)
        if key not in self._asked:
            if len(self._asked) >= WAITING:
                raise HistoryError(f"{WAITING} questions wait for {self._server.name} already; try again", UNAVAILABLE)
            task = self._asked[key] = asyncio.create_task(self._ask(key, words, period, vm.project))
            task.add_done_callback(lambda done: self._done(key, done))
        # Several may wait for one answer: who gives up leaves it to the others.
        try:
            return await asyncio.shield(self._asked[key])
        except asyncio.CancelledError:
            if self._stopping:
                raise HistoryError("this service stops", UNAVAILABLE) from None
            raise

    async def _ask(self, key: tuple[str, ...], words: str, period: Period, project: str) -> Values:
        try:
            async with asyncio.timeout(self._server.seconds), self._turns:
                self._leave_alone()  # others may have waited in vain meanwhile
                found = await self._server.ask(words, period, project)
        except TimeoutError as error:
            raise self._left_alone(self._too_slow()) from error
        except HistoryError as error:
            raise self._left_alone(error) from error
        self._failed = None
        self._kept[key] = (self._now() + KEPT_SECONDS, found)
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def _done(self, key: tuple[str, ...], done: asyncio.Task[Values]) -> None:
        self._asked.pop(key, None)
        if not done.cancelled():
            done.exception()  # it has been told to whoever waited

    def _too_slow(self) -> HistoryError:
        return HistoryError(f"{self._server.name} has not answered within {self._server.seconds:g} s", TOO_SLOW)

    def _leave_alone(self) -> None:
        """Raises ``HistoryError`` for a moment after the server has not answered."""
        if self._failed is not None and self._now() < self._failed[0]:
            raise HistoryError(str(self._failed[1]), self._failed[1].status)

    def _left_alone(self, error: HistoryError) -> HistoryError:
        """Notes that the server has not answered, so that it is left alone for a moment; one that refuses is asked again."""
        if error.status in {UNAVAILABLE, TOO_SLOW} and (self._failed is None or self._now() >= self._failed[0]):
            self._failed = (self._now() + PAUSE_SECONDS, error)
        return error
