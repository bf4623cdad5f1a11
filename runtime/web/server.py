"""The HTTP server of every service: loopback by default, GET unless a route is for POST, with limits on connections, headers and time.

``Web`` serves a table of routes; ``/healthz`` is always there and never waits. ``own_routes`` are the routes of a service without
other pages: ``/metrics`` and ``/readyz``. ``connections`` has their limits, ``runtime/access/`` says who may ask.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from virtflow.runtime.access.guard import Guard
from virtflow.runtime.access.rules import exposure
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.web.connections import SIGNED, Connection, Door, Limits
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.text import safe_lines

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOGGER: Final = logging.getLogger("virtflow.web")

EXPOSITION_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
POST: Final = "POST "
"""Before a route's path: it takes a body, of ``BODY_BYTES`` at most."""
BODY_BYTES: Final = 1 << 18
"""As many are held for each connection that sends a body slowly: 64 MiB for 256 of them."""
BACKLOG: Final = 128
SWEEP_SECONDS: Final = 1.0
STOP_SECONDS: Final = 2.0
"""How long answers under way may take when the server stops."""
HIGHEST_PORT: Final = 65_535


class Web:
    """One server on one address."""

    def __init__(
        self, listen: str, routes: Mapping[str, Handler], metrics: OwnMetrics, limits: Limits | None = None, guard: Guard | None = None
    ) -> None:
        """``listen`` is ``ADDRESS:PORT`` (``[::1]:9177`` for IPv6; port 0 takes a free one); ``routes`` maps paths to handlers.

        ``guard`` says who may ask; everyone where there is none.
        """
        self._listen = listen
        self._limits = limits or Limits()
        self._guard = guard or Guard()
        self._door = Door(self._limits, metrics, self._guard)
        self._application = _application(routes, self._guard)
        self._runner = web.AppRunner(
            self._application, handle_signals=False, access_log=None, shutdown_timeout=STOP_SECONDS, handler_cancellation=True
        )
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """``ADDRESS:PORT`` it is bound to; what was asked for while it is not."""
        if self._server is None or not self._server.sockets:
            return self._listen
        host, port, *_ = self._server.sockets[0].getsockname()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def url(self) -> str:
        """Scheme and address: ``https://127.0.0.1:9177``."""
        return f"{'http' if self._guard.rules.context is None else 'https'}://{self.address}"

    async def start(self) -> None:
        """Binds and serves; raises ``EnvironmentProblemError`` where the address can't be had."""
        host, port = split_address(self._listen)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        self._door.serve(server)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._door.protocol, host, port, backlog=BACKLOG, reuse_address=True)
        except OSError as error:
            await self._runner.cleanup()
            raise _not_bound(self._listen, error) from error
        why, fix = exposure(self._listen, self._guard.rules)
        if why:
            LOGGER.warning("%s %s: %s", self.address, why, fix)
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Stops accepting connections, waits two seconds for answers in progress, and closes everything; may be called twice."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
        if self._server is not None:
            self._server.close()
            await self._runner.cleanup()
            self._server = None
        self._guard.close()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        every = min(SWEEP_SECONDS, self._limits.request_timeout_seconds / 4)
        while True:
            await asyncio.sleep(every)
            self._guard.refresh(again=True)
            self._door.sweep(loop.time())


def split_address(listen: str) -> tuple[str, int]:
    """Host and port of ``ADDRESS:PORT``; raises ``EnvironmentProblemError`` where it is not of that form."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > HIGHEST_PORT:
        fix = f"write ADDRESS:PORT with a port up to {HIGHEST_PORT}, for example 127.0.0.1:9177"
        raise EnvironmentProblemError(thing="listening address", value=listen, why="no address and port", fix=fix)
    return host.strip("[]"), int(port)


def text(body: str, status: int = 200) -> web.Response:
    """A plain text answer, safe to show in a terminal; a newline is added."""
    return web.Response(text=safe_lines(body) + "\n", status=status)


def readiness(ready: Callable[[], str]) -> Handler:
    """Handler for ``/readyz``: ``ready`` returns what is still missing, "" when nothing is."""

    async def readyz(request: web.Request) -> web.Response:
        del request
        missing = ready()
        return text(f"not ready: {missing}", status=503) if missing else text("ready")

    return readyz


def own_routes(metrics: OwnMetrics, ready: Callable[[], str]) -> dict[str, Handler]:
    """The routes of a service that serves only its own metrics: ``/metrics`` and ``/readyz``."""

    async def own(request: web.Request) -> web.Response:
        del request
        return web.Response(body=metrics.render(), headers={"Content-Type": EXPOSITION_TYPE})

    return {"/metrics": own, "/readyz": readiness(ready)}


async def _healthz(request: web.Request) -> web.Response:
    del request
    return text("ok")


def _admitting(guard: Guard) -> Middleware:
    """Lets a request in or refuses it, then reads the body that its route takes, within the request's time.

    The connection is told when its request is complete. A refused client's body is never read.
    """

    @web.middleware
    async def admitting(request: web.Request, handler: Handler) -> web.StreamResponse:
        takes_body = request.method == "POST" and request.match_info.http_exception is None
        if not takes_body:
            _complete(request)
        refused = await guard.refusal(request, asyncio.get_running_loop().time())
        if refused is not None:
            return refused
        if takes_body:
            try:
                await request.read()
            except web.RequestPayloadError as error:  # not compressed, or not chunked, as its headers say
                return _unreadable(error)
            _complete(request)
        return await handler(request)

    return admitting


def _unreadable(error: Exception) -> web.Response:
    """The answer to a body that can't be read, after which nobody knows where the next request begins."""
    response = text(f"the body can't be read: {' '.join(str(error.__cause__ or error).split())}", status=400)
    response.force_close()
    return response


def _complete(request: web.Request) -> None:
    if isinstance(request.protocol, Connection):
        request.protocol.answering()


def _signing(guard: Guard) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Removes version headers, forbids browsers to guess content types, and adds the web configuration's headers."""

    async def sign(request: web.Request, response: web.StreamResponse) -> None:
        del request
        response.headers.update(SIGNED)
        for name, value in guard.rules.headers.items():
            response.headers.setdefault(name, value)

    return sign


def _application(routes: Mapping[str, Handler], guard: Guard) -> web.Application:
    takes_bodies = any(path.startswith(POST) for path in routes)
    application = web.Application(middlewares=[_admitting(guard)], client_max_size=BODY_BYTES if takes_bodies else 1024)
    application.on_response_prepare.append(_signing(guard))
    for path, handler in {"/healthz": _healthz, **routes}.items():
        if path.startswith(POST):
            application.router.add_post(path.removeprefix(POST), handler)
        else:
            application.router.add_get(path, handler)
    return application


def _not_bound(listen: str, error: OSError) -> EnvironmentProblemError:
    why = error.strerror or str(error)
    fix = "choose another --listen ADDRESS:PORT"
    if error.errno == errno.EADDRINUSE:
        why, fix = "already in use", "stop the process that holds it, or " + fix
    elif error.errno == errno.EACCES:
        fix = "choose a port above 1023 for --listen ADDRESS:PORT"
    elif isinstance(error, socket.gaierror):
        why, fix = "is no address of this host", "name one of this host's addresses with --listen ADDRESS:PORT"
    return EnvironmentProblemError(thing="listening address", value=listen, why=why, fix=fix)
