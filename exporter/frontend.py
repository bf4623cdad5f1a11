"""The fleet page and the JSON API put together over one fleet: their routes, and what they do in the background."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.routes import Api, targets_of
from virtflow.exporter.api.stream import Streams
from virtflow.exporter.api.targets import checked_targets
from virtflow.exporter.api.updates import Updates
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.page.site import Site
from virtflow.exporter.shard import shard_of
from virtflow.exporter.views.fleet_view import FleetView
from virtflow.runtime.settings import Exporter as Section
from virtflow.runtime.version import version
from virtflow.runtime.web.server import Handler


class Frontend:
    """Belongs to the event loop."""

    def __init__(self, fleet: Fleet, settings: Section, clocks: Clocks, missing: Callable[[], str]) -> None:
        """``missing`` returns why the fleet is not fully known yet, "" once it is."""
        view, shard = FleetView(fleet), shard_of(settings.shard)
        answers = Answers(view, secrets.token_hex(4), version(), missing)
        self._updates = Updates(view, clocks.now, missing)
        self._streams = Streams(answers, clocks.wall, settings.connections, settings.request_timeout_seconds)
        self._api = Api(answers, self._updates, self._streams, clocks)
        self._site = Site(answers, self._updates, clocks)
        self._targets = targets_of(checked_targets(settings.targets, shard), shard, settings.listen)

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        return self._site.routes() | self._api.routes(self._targets)

    async def running(self) -> None:
        """Looks for what fell silent, and keeps the last hour; runs until it is cancelled."""
        await self._updates.ticking()

    def close(self) -> None:
        """Ends the streams of events."""
        self._streams.close()
