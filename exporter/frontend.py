"""The fleet page and the JSON API put together over one fleet: their routes, and what they do in the background."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.history import HistoryApi
from virtflow.exporter.api.questions import Questions
from virtflow.exporter.api.replies import no_such_path
from virtflow.exporter.api.routes import Api, targets_of
from virtflow.exporter.api.stream import Streams
from virtflow.exporter.api.targets import checked_targets
from virtflow.exporter.api.updates import Updates
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.details.charts import waiting
from virtflow.exporter.details.history_page import HistoryPage
from virtflow.exporter.details.links import Links
from virtflow.exporter.details.node_page import NodePage
from virtflow.exporter.fleet import Fleet
from virtflow.exporter.long_history.client import HistoryServer
from virtflow.exporter.long_history.periods import BY_NAME
from virtflow.exporter.long_history.source import LongHistory
from virtflow.exporter.page.site import Site
from virtflow.exporter.page.vm_page import Extra
from virtflow.exporter.shard import shard_of
from virtflow.exporter.views.fleet_view import FleetView
from virtflow.runtime.settings import Exporter as Section
from virtflow.runtime.version import version
from virtflow.runtime.web.server import Handler


class Frontend:
    """Belongs to the event loop."""

    def __init__(self, fleet: Fleet, settings: Section, clocks: Clocks, missing: Callable[[], str]) -> None:
        """``missing`` returns why the fleet is not fully known yet, "" once it is.

        Raises ``SettingError`` for a history server that can't be asked.
        """
        view, shard = FleetView(fleet), shard_of(settings.shard)
        answers = Answers(view, secrets.token_hex(4), version(), missing)
        self._updates = Updates(view, clocks.now, missing)
        self.questions: Final = Questions(answers, self._updates, clocks)
        self._streams = Streams(answers, clocks.wall, settings.connections, settings.request_timeout_seconds)
        self._history = LongHistory(HistoryServer(settings), clocks.now) if settings.history_url else None
        self._links = Links(settings.grafana_url, settings.docs_url)
        self._targets = targets_of(checked_targets(settings.targets, shard), shard, settings.listen)
        self._api = Api(answers, self._updates, self._streams, clocks)
        self._pages: list[Site | NodePage | HistoryPage | HistoryApi] = [
            Site(answers, self._updates, clocks, self._extras),
            NodePage(answers, self._updates, clocks, self._links),
            HistoryApi(answers, self._updates, clocks, self._history),
        ]
        if self._history is not None:
            self._pages.append(HistoryPage(answers, self._updates, clocks, self._history))

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        found = self._api.routes(self._targets)
        for pages in self._pages:
            found |= pages.routes()
        return found | {"/api/{path:.*}": no_such_path}

    async def running(self) -> None:
        """Looks for what fell silent, and keeps the last hour; runs until it is cancelled."""
        try:
            await self._updates.ticking()
        finally:
            if self._history is not None:
                await self._history.close()

    def close(self) -> None:
        """Ends the streams of events, and the waiting for a history."""
        self._streams.close()
        if self._history is not None:
            self._history.stop()

    def _extras(self, vm: Mapping[str, Any], query: Mapping[str, str]) -> Extra:
        """Links from a VM's page, and the part of it that the history fills; that is asked for only once a range is chosen."""
        chosen = query.get("range", "")
        history = waiting(vm["uuid"], chosen if chosen in BY_NAME else "") if self._history is not None else None
        return Extra(self._links.of_vm(vm), history)
