"""The API's questions without HTTP, for whoever has the fleet in the same process: a path in, its answer out."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec

from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME
from virtflow.exporter.api.parameters import parse
from virtflow.exporter.api.updates import FRESH_SECONDS, Updates
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.views.fleet_view import FleetView
from virtflow.schemas.errors import InputError

ONE_OF: Final = {"vms": "vm", "nodes": "node"}
"""The endpoint that answers about one of a list."""
INTERVALS: Final = 2
"""Sampling intervals that a VM's next sample is waited for."""
LONGEST_SECONDS: Final = 30.0
"""However long the intervals are, no sample is waited for any longer."""


def absent(name: str, subject: str) -> str:
    """The error where what a path names is not there."""
    return f"there is no {name} {subject[:80]!r}"


class Questions:
    """Belongs to the event loop."""

    def __init__(self, answers: Answers, updates: Updates, clocks: Clocks) -> None:
        """What answers, and what keeps the view fresh."""
        self._answers = answers
        self._updates = updates
        self._clocks = clocks

    def missing(self) -> str:
        """Why the fleet is not fully known yet; "" once it is."""
        return self._answers.missing()

    async def answer(self, path: str) -> Any:  # noqa: ANN401, what JSON holds
        """The answer at a path below the API's prefix, with its query, as JSON builtins; raises ``InputError`` with the API's own words."""
        where, _, query = path.partition("?")
        listed, _, subject = where.partition("/")
        name, subject = ONE_OF[listed] if subject else listed, unquote(subject)
        values = parse(BY_NAME[name].parameters, parse_qsl(query, keep_blank_values=True))
        await self._updates.fresh()
        found = self._answers.named(name, values, self._clocks.wall(), subject)
        if found is None:
            raise InputError(absent(name, subject))
        return msgspec.json.decode(msgspec.json.encode(found))

    async def rates(self) -> None:
        """Waits until the rates of all VMs are known; for a sample that does not come, two of the nodes' intervals at most."""
        view = await self._updates.fresh()
        first = {seen.uuid: seen.stamp for seen in view.vms() if not seen.before}
        limit = min(INTERVALS * max((node.status.interval for node in view.fleet.nodes()), default=0.0), LONGEST_SECONDS)
        deadline = self._clocks.now() + limit
        while _unchanged(view, first) and self._clocks.now() < deadline:
            await asyncio.sleep(FRESH_SECONDS)
            view = await self._updates.fresh()


def _unchanged(view: FleetView, first: dict[str, tuple[int, float]]) -> bool:
    """Whether there is a VM of which only the sample in ``first`` has been seen."""
    return any(first.get(seen.uuid) == seen.stamp for seen in view.vms())
