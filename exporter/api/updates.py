"""Keeps the view of the fleet current: at once for whoever asks, and in the background for events and the hour in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from virtflow.exporter.views.fleet_view import FleetView
from virtflow.exporter.views.ring import POINT_SECONDS

FRESH_SECONDS: Final = 0.5
"""For how long a view is good enough for the next one who asks."""
TICK_SECONDS: Final = 2.0
"""How often VMs and nodes that fell silent are looked for, so that their events come without a scrape."""


class Updates:
    """Belongs to the event loop."""

    def __init__(self, view: FleetView, now: Callable[[], float], missing: Callable[[], str]) -> None:
        """``now`` is the fleet's clock; ``missing`` returns why the fleet is not fully known yet."""
        self._view = view
        self._now = now
        self._missing = missing
        self._turn = asyncio.Lock()
        self._updated = float("-inf")
        self._minute = int(now() // POINT_SECONDS)

    async def fresh(self) -> FleetView:
        """The view, no older than ``FRESH_SECONDS``."""
        async with self._turn:
            if self._now() - self._updated >= FRESH_SECONDS:
                await self._update()
        return self._view

    async def ticking(self) -> None:
        """Runs until it is cancelled. Changes count from when the fleet is known."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """What is due now."""
        if not self._missing():
            self._view.fleet.changes.open()
        self._view.fleet.expire_where_due(self._now())
        minute = int(self._now() // POINT_SECONDS)
        if minute != self._minute:
            self._minute = minute
            async with self._turn:
                await _step_by_step(self._view.recording(self._now()))

    async def _update(self) -> None:
        await _step_by_step(self._view.updating(self._now()))
        self._updated = self._now()


async def _step_by_step(steps: Iterator[None]) -> None:
    """Gives other tasks their turn after each step."""
    for _ in steps:
        await asyncio.sleep(0)
