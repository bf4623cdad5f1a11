"""The HTTP server with a web configuration of a test's own, and one-line requests to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bcrypt
from aiohttp import ClientSession, TCPConnector, encode_basic_auth, web

from tests.support.certificates import Pair
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Web as WebSettings
from virtflow.runtime.web.connections import Limits
from virtflow.runtime.web.server import Handler, Web, own_routes, text

HASH = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
OTHER = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
USERS = f"basic_auth_users:\n  prometheus: {HASH}\n  grafana: {HASH}\n"
ME = encode_basic_auth("prometheus", "s3cret")


async def _answer(request: web.Request) -> web.StreamResponse:
    return text(request.path)


def routes(metrics: OwnMetrics) -> dict[str, Handler]:
    return {
        **own_routes(metrics, lambda: ""),
        "/api/v1/query": _answer,
        "POST /api/v1/read": _answer,
        "POST /change": _answer,
    }


class Served:
    """A server with a web configuration, and one-line requests to it."""

    def __init__(self, server: Web, metrics: OwnMetrics, guard: Guard, session: ClientSession) -> None:
        """``session`` is a client's."""
        self.server, self.metrics, self.guard, self.session = server, metrics, guard, session

    async def status(self, path: str = "/metrics", method: str = "GET", auth: str | None = None) -> int:
        """The status of an answer; ``auth`` is the header Authorization."""
        headers = {} if auth is None else {"Authorization": auth}
        async with self.session.request(method, self.server.url + path, headers=headers) as answer:
            await answer.read()
            return answer.status

    @property
    def comparisons(self) -> float:
        return self.metrics.value("virtflow_web_password_comparisons_total")


@asynccontextmanager
async def serving(
    settings: WebSettings, context: ssl.SSLContext | None = None, limits: Limits | None = None, *, keep: bool = True
) -> AsyncIterator[Served]:
    metrics = OwnMetrics("exporter")
    guard = Guard(settings, metrics)
    server = Web("127.0.0.1:0", routes(metrics), metrics, limits, guard)
    await server.start()
    connector = TCPConnector(ssl=context if context is not None else True, force_close=not keep)
    async with ClientSession(connector=connector) as session:
        try:
            yield Served(server, metrics, guard, session)
        finally:
            await server.stop()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def configured(folder: Path, text: str, **more: Any) -> WebSettings:  # noqa: ANN401, settings of any type
    file = folder / "web.yml"
    replace(file, text)
    return WebSettings(config_file=str(file), **more)


def replace(file: Path, text: str) -> None:
    """As an editor does: a new file in the old one's place."""
    part = file.with_suffix(".new")
    part.write_text(text)
    part.replace(file)


def tls(pair: Pair, more: str = "") -> str:
    return f"tls_server_config:\n  cert_file: {pair.certificate}\n  key_file: {pair.key}\n{more}"
