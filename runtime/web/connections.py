"""Limits on HTTP connections: how many may be open, and how long each may stay in one phase.

A connection waits for a request's first byte (idle), for the rest of the request with its body (asking), or for its client to take the
answer (answering). aiohttp limits none of these for a first request, so each connection knows since when it is in its phase, and
the ``Door`` closes what is overdue. When the door is full, the one who asks least makes room: first connections whose TLS handshake is
not complete, then those without a complete request, the longest wait first, then clients that do not take their answer. So a flood of
idle connections, of half requests or of slow readers never keeps a scrape out. Where nobody can go, the newcomer gets 503.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from virtflow.runtime.access.guard import Guard
from virtflow.runtime.access.handshake import Handshake
from virtflow.runtime.own_metrics import OwnMetrics

SIGNED: Final = {"Server": "virtflow", "X-Content-Type-Options": "nosniff"}
"""Headers of every answer: no versions, and browsers are forbidden to guess content types."""
LOGGER: Final = logging.getLogger("virtflow.web")

STALLED_SECONDS: Final = 1.0
"""A client that takes nothing of its answer for this long may be dropped for a newcomer."""

REFUSAL_LINGER_SECONDS: Final = 1.0
"""How long a refused client may take to read why: closing at once over unread bytes would reset the connection."""

_HEADER: Final = "Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\nServer: virtflow\r\n"
_BUSY_TEXT: Final = "too many connections\n"
_LATE_TEXT: Final = "the request took too long\n"
BUSY: Final = (
    f"HTTP/1.1 503 Service Unavailable\r\n{_HEADER}Retry-After: 1\r\nContent-Length: {len(_BUSY_TEXT)}\r\n\r\n{_BUSY_TEXT}".encode()
)
LATE: Final = f"HTTP/1.1 408 Request Timeout\r\n{_HEADER}Content-Length: {len(_LATE_TEXT)}\r\n\r\n{_LATE_TEXT}".encode()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for clients: concurrent connections, seconds for a whole request with its body, idle seconds, header bytes.

    ``answer_timeout_seconds`` is for making and taking an answer; where it is None, that may take as long as a request.
    """

    connections: int = 256
    request_timeout_seconds: float = 15.0
    answer_timeout_seconds: float | None = None
    idle_seconds: float = 75.0
    header_bytes: int = 8_190

    def of(self, phase: Phase) -> float:
        """How long a connection may stay in a phase."""
        match phase:
            case Phase.IDLE:
                return self.idle_seconds
            case Phase.ANSWERING if self.answer_timeout_seconds is not None:
                return self.answer_timeout_seconds
        return self.request_timeout_seconds


class Phase(Enum):
    """What a connection waits for."""

    IDLE = auto()
    ASKING = auto()
    ANSWERING = auto()


class Connection(RequestHandler):
    """aiohttp's connection with its current phase, and the start of that phase (seconds of the loop's clock)."""

    __slots__ = ("_door", "generation", "phase", "since", "stalled_since")

    def __init__(self, door: Door, server: web.Server, limits: Limits) -> None:
        """A new connection has the same time for its first byte as for its whole request."""
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.idle_seconds,
            access_log=cast("Any", None),
            logger=LOGGER,
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
            lingering_time=0,
        )
        self._door = door
        self.generation = 0
        """Of the rules under which its client was let in."""
        self.phase = Phase.ASKING
        self.since = loop.time()
        self.stalled_since: float | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Closed, by whichever side."""
        self._door.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The first bytes after an answer begin a request."""
        if self.phase is Phase.IDLE and data:
            self._enter(Phase.ASKING)
        super().data_received(data)

    def shaken(self) -> None:
        """Its TLS handshake is complete: the time for its request begins."""
        self._enter(Phase.ASKING)

    def answering(self) -> None:
        """The request is complete; its answer begins."""
        self._enter(Phase.ANSWERING)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the rest of an answer and counts it."""
        self._enter(Phase.ANSWERING)
        finished = await super().finish_response(request, resp, start_time)
        self._door.answered(finished[0].status)
        self._enter(Phase.IDLE)
        return finished

    def pause_writing(self) -> None:
        """The client's window is full."""
        super().pause_writing()
        self.stalled_since = self._loop.time()

    def resume_writing(self) -> None:
        """The client takes its answer again."""
        super().resume_writing()
        self.stalled_since = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, or to a defect of ours: the status and nothing else. aiohttp's own names its version."""
        super().handle_error(request, status, exc, message)
        response = web.Response(text=f"{status} {HTTPStatus(status).phrase}\n", status=status)
        response.headers.update(SIGNED)
        response.force_close()
        return response

    def log_exception(self, *args: object, **kw: object) -> None:
        """Invalid HTTP, or leaving, is the client's doing and is logged at debug level only; a handler's other exception is our defect."""
        if isinstance(kw.get("exc_info"), HttpProcessingError | ConnectionError):
            LOGGER.debug("a request that is no HTTP, or a client that left: %s", kw["exc_info"])
            return
        super().log_exception(*args, **kw)

    def end(self, last_words: bytes = b"") -> None:
        """Closes immediately; data that the client has not read is discarded."""
        transport = self.transport
        if transport is None:
            return
        if last_words:
            transport.write(last_words)
            self.force_close()
            self._loop.call_later(REFUSAL_LINGER_SECONDS, transport.abort)
        else:
            transport.abort()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since = self._loop.time()


class _Refused(asyncio.Protocol):
    """A connection over the limit: answered with 503, and closed once it has sent something or after one second."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says 503 at once."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(BUSY)
        if not self._door.linger(self):
            self._transport.close()
            return
        asyncio.get_running_loop().call_later(REFUSAL_LINGER_SECONDS, self.close)

    def data_received(self, data: bytes) -> None:
        """Its request does not matter."""
        del data
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Makes room for the next one to be refused."""
        del exc
        self._door.lingered(self)

    def close(self) -> None:
        """Closes once the 503 is sent."""
        if self._transport is not None:
            self._transport.close()


class Door:
    """Accepts connections up to the limit and closes overdue ones. ``protocol`` is asyncio's protocol factory."""

    def __init__(self, limits: Limits, metrics: OwnMetrics, guard: Guard) -> None:
        """Accepts no connection before ``serve`` sets the server."""
        self._limits = limits
        self._guard = guard
        self._server: web.Server | None = None
        self._open: dict[Connection, None] = {}
        self._shaking: dict[Handshake, None] = {}
        self._turned_away: dict[Handshake, None] = {}
        """Handshakes of clients that will be told 503."""
        self._refused: set[_Refused] = set()
        self._requests = metrics.counter("virtflow_web_requests_total")
        self._connections = metrics.gauge("virtflow_web_connections")
        self._refusals = metrics.counter("virtflow_web_connections_refused_total")
        self._tls_failures = metrics.counter("virtflow_web_tls_failures_total")

    def serve(self, server: web.Server) -> None:
        """From now on connections are handled by ``server``."""
        self._server = server

    def protocol(self) -> asyncio.Protocol:
        """The protocol of a new connection: a normal one, or a refusal where the limit is reached and no other connection can be closed."""
        assert self._server is not None
        context = self._guard.context
        protocol: Connection | _Refused
        if len(self._open) + len(self._shaking) >= self._limits.connections and not self._make_room():
            self._refusals.inc()
            self._requests.labels(status="503").inc()
            protocol = _Refused(self)
        else:
            protocol = Connection(self, self._server, self._limits)
            protocol.generation = self._guard.generation
        if context is not None:
            handshake = Handshake(protocol, context, self._limits.request_timeout_seconds, self)
            self._shake(handshake)
            return handshake
        # The place is taken here, not when the transport is ready: a burst of newcomers is accepted in one turn of the loop.
        if isinstance(protocol, Connection):
            self._enter(protocol)
        return protocol

    def shaken(self, handshake: Handshake, peer: object) -> bool:
        """A TLS handshake is complete; False where the client's certificate has no name that is allowed."""
        self._forget(handshake)
        allowed = self._guard.rules.peer_allowed(peer)
        if not allowed:
            LOGGER.debug("a client's certificate has none of client_allowed_sans")
            self._tls_failures.inc()
        elif isinstance(handshake.protocol, Connection):
            handshake.protocol.shaken()
            self._enter(handshake.protocol)
        self._count()
        return allowed

    def failed(self, handshake: Handshake) -> None:
        """A TLS handshake has ended without success; one that had to make room is counted already."""
        if self._forget(handshake):
            self._tls_failures.inc()
            self._count()

    def left(self, connection: Connection) -> None:
        """A connection is closed."""
        self._open.pop(connection, None)
        self._count()

    def answered(self, status: int) -> None:
        """A request got its answer."""
        self._requests.labels(status=str(status)).inc()

    def linger(self, refused: _Refused) -> bool:
        """Whether there is room for a refused client to read why."""
        if len(self._refused) >= self._limits.connections:
            return False
        self._refused.add(refused)
        return True

    def lingered(self, refused: _Refused) -> None:
        """A refused client is gone."""
        self._refused.discard(refused)

    def sweep(self, now: float) -> None:
        """Closes what is overdue at ``now`` (the loop's clock), and idle clients that were let in under older rules: they come again."""
        for connection in list(self._open):
            outdated = connection.phase is Phase.IDLE and connection.generation != self._guard.generation
            if outdated or now - connection.since > self._limits.of(connection.phase):
                connection.end(LATE if connection.phase is Phase.ASKING else b"")
                self.left(connection)

    def _shake(self, handshake: Handshake) -> None:
        if isinstance(handshake.protocol, Connection):
            self._shaking[handshake] = None
            self._count()
            return
        self._turned_away[handshake] = None
        if len(self._turned_away) > self._limits.connections:
            oldest = next(iter(self._turned_away))
            del self._turned_away[oldest]
            oldest.end()

    def _forget(self, handshake: Handshake) -> bool:
        """Whether it was under way."""
        known = handshake in self._shaking or handshake in self._turned_away
        self._shaking.pop(handshake, None)
        self._turned_away.pop(handshake, None)
        return known

    def _enter(self, connection: Connection) -> None:
        self._open[connection] = None
        self._count()

    def _count(self) -> None:
        self._connections.set(len(self._open) + len(self._shaking))

    def _make_room(self) -> bool:
        """Closes the least important connection; False where all of them are being answered."""
        for handshake in self._shaking:
            del self._shaking[handshake]
            self._refusals.inc()
            handshake.end()
            return True
        for connection in self._open:
            if connection.phase is not Phase.ANSWERING and connection.transport is not None:
                self._give_up(connection, BUSY if connection.phase is Phase.ASKING else b"")
                return True
        now = asyncio.get_running_loop().time()
        for connection in self._open:
            if connection.stalled_since is not None and now - connection.stalled_since > STALLED_SECONDS:
                self._give_up(connection, b"")
                return True
        return False

    def _give_up(self, connection: Connection, last_words: bytes) -> None:
        self._refusals.inc()
        if last_words:
            self._requests.labels(status="503").inc()
        connection.end(last_words)
        self.left(connection)
