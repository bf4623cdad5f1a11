"""The endpoint of a VM's long history: parameters in, one curve from the history server out."""

from __future__ import annotations

from aiohttp import web

from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME, PREFIX
from virtflow.exporter.api.parameters import ParameterError, Values, parse
from virtflow.exporter.api.questions import absent
from virtflow.exporter.api.replies import error_reply, json_reply
from virtflow.exporter.api.updates import Updates
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.long_history.answer import VmHistory, vm_history
from virtflow.exporter.long_history.client import HistoryError
from virtflow.exporter.long_history.periods import DAY, Period, period
from virtflow.exporter.long_history.source import LongHistory, Vm
from virtflow.exporter.views.fleet_view import Seen
from virtflow.runtime.web.server import Handler
from virtflow.schemas.projects import project_id_of

NOT_CONFIGURED = "no history server is named here: set exporter.history_url"


class HistoryApi:
    """The endpoint over one history server, or over none."""

    def __init__(self, answers: Answers, updates: Updates, clocks: Clocks, history: LongHistory | None) -> None:
        """Without ``history`` the answer says how to get one."""
        self._answers = answers
        self._updates = updates
        self._clocks = clocks
        self._history = history

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        return {f"{PREFIX}/vms/{{uuid}}/history": self.handle}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The answer; only about VMs that the other endpoints show."""
        try:
            values = parse(BY_NAME["vm_history"].parameters, request.query.items())
            asked = period_of(values, self._clocks.wall())
        except ParameterError as error:
            return error_reply(request, error, 400)
        if self._history is None:
            return error_reply(request, NOT_CONFIGURED, 404)
        uuid = request.match_info["uuid"]
        seen = (await self._updates.fresh()).vm(uuid)
        if seen is None:
            return error_reply(request, absent("vm", uuid), 404)
        try:
            return json_reply(request, await self._told(self._history, seen, str(values["metric"]), asked))
        except HistoryError as error:
            return error_reply(request, error, error.status)

    async def _told(self, history: LongHistory, seen: Seen, metric: str, asked: Period) -> VmHistory:
        return vm_history(seen.record.uuid, metric, asked, await history.curve(vm_asked(seen), metric, asked))


def period_of(values: Values, now: float) -> Period:
    """The points that the parameters ask for; raises ``ParameterError``."""
    end = float(values["to"]) or now
    start = float(values["from"]) or end - DAY
    try:
        return period(start, end, int(values["step"]))
    except ValueError as error:
        raise ParameterError("from", f"{start:.0f}", f"a time before `to`; {error}") from error


def vm_asked(seen: Seen) -> Vm:
    """Whose history is asked for. History servers name its project as ``project_id_of`` does."""
    inventory, interval = seen.inventory, seen.record.interval
    project = project_id_of(inventory) if inventory is not None else ""
    return Vm(seen.record.uuid, project, interval if interval > 0 else 0.0)
