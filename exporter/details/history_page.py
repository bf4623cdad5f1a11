"""The page of a VM's long history: drawn by this process, complete without scripts; the VM's own page puts it in by a script."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from aiohttp import web

from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.history import vm_asked
from virtflow.exporter.api.parameters import Parameter, ParameterError, parse
from virtflow.exporter.api.updates import Updates
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.details.charts import NAMES, Mark, charts, failed, part
from virtflow.exporter.long_history.client import HistoryError
from virtflow.exporter.long_history.periods import BY_NAME, SPANS
from virtflow.exporter.long_history.source import LongHistory
from virtflow.exporter.page.html import el, join
from virtflow.exporter.page.site import page_reply, problem
from virtflow.exporter.views.changes import What
from virtflow.runtime.web.server import Handler

PATH: Final = "/vms/{uuid}/history"
PARAMETERS: Final = (Parameter("range", "How far back.", default="day", choices=tuple(span.name for span in SPANS)),)


class HistoryPage:
    """The page over one history server."""

    def __init__(self, answers: Answers, updates: Updates, clocks: Clocks, history: LongHistory) -> None:
        """As the site, and what is asked."""
        self._answers = answers
        self._updates = updates
        self._clocks = clocks
        self._history = history

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        return {PATH: self.page}

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The charts of one range; where the history does not answer, why in one line."""
        await self._updates.fresh()
        uuid = request.match_info["uuid"]
        seen = self._answers.view.vm(uuid)
        if seen is None:
            text = f"No VM with the UUID {uuid[:80]} is exported now."
            return page_reply(request, self._answers, ("No such VM", "/vms"), problem("No such VM", text), 404)
        try:
            span = BY_NAME[str(parse(PARAMETERS, request.query.items())["range"])]
        except ParameterError as error:
            return page_reply(request, self._answers, ("Bad request", "/vms"), problem("Bad request", str(error)), 400)
        try:
            found = await self._history.curves(vm_asked(seen), NAMES, span, self._clocks.wall())
            content = charts(found, self._marks(uuid))
        except HistoryError as error:
            content = failed(str(error))
        name = seen.record.name or uuid
        title = el("h1", el("a", el("bdi", name), href=f"/vms/{quote(uuid, safe='')}"))
        return page_reply(request, self._answers, (f"History of {name}", "/vms"), join(title, part(uuid, span.name, content)))

    def _marks(self, uuid: str) -> list[Mark]:
        """The VM's migrations that this exporter knows: the last one, and those that it has seen begin."""
        fleet = self._answers.view.fleet
        shift = self._clocks.wall() - fleet.now
        found = [
            Mark(change.at + shift, f"moved {change.before} → {change.after}")
            for change in fleet.changes.after(0)
            if change.uuid == uuid and change.kind is What.VM_MOVED
        ]
        last = fleet.migrations.newest(uuid)
        if last is not None and last.started_timestamp_seconds > 0:
            found.append(Mark(last.started_timestamp_seconds, f"migration {last.source} → {last.destination}: {last.result}"))
        return found
