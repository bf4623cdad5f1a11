"""Events as a stream that goes on (server-sent events), from where a client left off.

A stream may last as long as the client reads it: after each heartbeat that was taken its connection counts as new, so that the limit
on the time of an answer holds for clients that read nothing. Only a part of the connections may be streams: scrapes need the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from virtflow.exporter.api.answers import Answers, change_matches
from virtflow.exporter.api.endpoints import STREAM_TYPE
from virtflow.exporter.api.parameters import Values
from virtflow.exporter.api.replies import error_reply
from virtflow.exporter.views.changes import Event, place_of
from virtflow.runtime.web.connections import Connection

HEARTBEAT_SECONDS: Final = 5.0
RETRY_MILLISECONDS: Final = 2_000
HEARTBEAT: Final = b": alive\n\n"
SHARE: Final = 4
"""One in so many connections may be a stream."""


def frame(event: Event) -> bytes:
    """An event in the stream's format (source: the HTML standard, "Server-sent events"). JSON has no raw line ends."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.id.encode(), event.kind.value.encode(), msgspec.json.encode(event))


class Streams:
    """All streams of one exporter."""

    def __init__(self, answers: Answers, wall: Callable[[], float], connections: int, timeout_seconds: float) -> None:
        """``connections`` that may be open at all; ``timeout_seconds`` that an answer may take."""
        self._answers = answers
        self._wall = wall
        self._most = max(1, connections // SHARE)
        self._heartbeat = min(HEARTBEAT_SECONDS, timeout_seconds / 3)
        self._wakers: set[asyncio.Event] = set()
        self._closing = False

    def close(self) -> None:
        """Ends all streams: the service stops."""
        self._closing = True
        for waker in self._wakers:
            waker.set()

    async def stream(self, request: web.Request, values: Values) -> web.StreamResponse:
        """Sends what has changed since the client's last event, then what changes, until either side ends it."""
        if len(self._wakers) >= self._most:
            reply = error_reply(request, f"{self._most} streams are open already, as many as may be", 503)
            reply.headers["Retry-After"] = "5"
            return reply
        response = web.StreamResponse(headers={"Content-Type": f"{STREAM_TYPE}; charset=utf-8", "Cache-Control": "no-store"})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        changes, waker = self._answers.view.fleet.changes, asyncio.Event()
        self._wakers.add(waker)
        changes.listeners.add(waker.set)
        try:
            await self._send(request, response, values, waker)
        except ConnectionError:
            pass  # the client is gone
        finally:
            changes.listeners.discard(waker.set)
            self._wakers.discard(waker)
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, values: Values, waker: asyncio.Event) -> None:
        changes = self._answers.view.fleet.changes
        position, first = self._start(request, values)
        await response.write(first)
        while not self._closing:
            waker.clear()
            new = [change for change in changes.after(position) if change_matches(change, values)]
            position = changes.newest
            # Written even when empty: a client that is gone is noticed, one that reads is known to.
            await response.write(b"".join(frame(self._answers.event(change, self._wall())) for change in new) or HEARTBEAT)
            if isinstance(request.protocol, Connection):
                request.protocol.answering()
            try:
                async with asyncio.timeout(self._heartbeat):
                    await waker.wait()
            except TimeoutError:
                continue

    def _start(self, request: web.Request, values: Values) -> tuple[int, bytes]:
        """After which change the stream begins, and its first bytes: whether changes were lost, and the id to go on from."""
        changes, run = self._answers.view.fleet.changes, self._answers.run
        word = request.headers.get("Last-Event-ID", "") or str(values["after"])
        number = place_of(word, run) if word else changes.newest
        lost = number is None or changes.lost(number)
        position = number if number is not None else 0
        first = b"retry: %d\n" % RETRY_MILLISECONDS
        first += b"event: lost\nid: %s-%d\ndata: {}\n\n" % (run.encode(), position) if lost else b"\n"
        return position, first
