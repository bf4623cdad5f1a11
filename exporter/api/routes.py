"""The routes of the API: parameters are parsed, the view is made fresh, the answer is sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import msgspec
from aiohttp import web

from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME, PREFIX, STREAM_TYPE
from virtflow.exporter.api.openapi import document
from virtflow.exporter.api.parameters import ParameterError, parse
from virtflow.exporter.api.questions import absent
from virtflow.exporter.api.replies import (
    AGE_SECONDS,
    JSON_TYPE,
    entity_tag,
    error_reply,
    json_reply,
    not_modified,
    packed,
    unchanged,
)
from virtflow.exporter.api.stream import Streams
from virtflow.exporter.api.targets import TargetGroup, target_groups
from virtflow.exporter.api.updates import Updates
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.shard import Shard
from virtflow.runtime.web.server import Handler

OPENAPI_PATH: Final = f"{PREFIX}/openapi.json"


class Api:
    """The API over one fleet."""

    def __init__(self, answers: Answers, updates: Updates, streams: Streams, clocks: Clocks) -> None:
        """What answers, what keeps the view fresh, and the streams of events."""
        self._answers = answers
        self._updates = updates
        self._streams = streams
        self._clocks = clocks

    def routes(self, targets: Callable[[str], list[TargetGroup]]) -> dict[str, Handler]:
        """Paths and their handlers; ``targets`` makes the target groups for a client's header ``Host``."""

        async def of_targets(request: web.Request) -> web.StreamResponse:
            return json_reply(request, targets(request.headers.get("Host", "")))

        return {
            OPENAPI_PATH: _openapi,
            f"{PREFIX}/targets": of_targets,
            f"{PREFIX}/fleet": self._handler("fleet"),
            f"{PREFIX}/vms": self._handler("vms"),
            f"{PREFIX}/vms/{{uuid}}": self._handler("vm", "uuid"),
            f"{PREFIX}/nodes": self._handler("nodes"),
            f"{PREFIX}/nodes/{{node}}": self._handler("node", "node"),
            f"{PREFIX}/migrations": self._handler("migrations"),
            f"{PREFIX}/events": self._events,
        }

    def _handler(self, name: str, part: str = "") -> Handler:
        """The handler of an endpoint; ``part`` is that part of its path that names what is asked about."""
        endpoint = BY_NAME[name]

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                values = parse(endpoint.parameters, request.query.items())
                view = await self._updates.fresh()
                state = (view.revision, view.fleet.changes.newest, int(self._clocks.now() // AGE_SECONDS))
                tag = entity_tag(request, self._answers.run, *state)
                if unchanged(request, tag):
                    return not_modified(tag)
                subject = request.match_info.get(part, "")
                answer = self._answers.named(name, values, self._clocks.wall(), subject)
            except ParameterError as error:
                return error_reply(request, error, 400)
            if answer is None:
                return error_reply(request, absent(name, subject), 404)
            return json_reply(request, answer, tag=tag)

        return handle

    async def _events(self, request: web.Request) -> web.StreamResponse:
        try:
            values = parse(BY_NAME["events"].parameters, request.query.items())
        except ParameterError as error:
            return error_reply(request, error, 400)
        if STREAM_TYPE in request.headers.get("Accept", ""):
            return await self._streams.stream(request, values)
        await self._updates.fresh()
        return json_reply(request, self._answers.events(values, self._clocks.wall()))


def targets_of(targets: tuple[str, ...], shard: Shard, listen: str) -> Callable[[str], list[TargetGroup]]:
    """Makes target groups for a client's header ``Host``."""
    return lambda host: target_groups(targets, shard, host, listen)


@cache
def _document() -> bytes:
    return msgspec.json.format(msgspec.json.encode(document()), indent=2)


async def _openapi(request: web.Request) -> web.StreamResponse:
    return packed(request, _document(), JSON_TYPE)
