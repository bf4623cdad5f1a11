"""A Kubernetes API server that does as it is told: lists, watches and access reviews, in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web
from aiohttp.test_utils import TestServer

from virtflow.adapter.kubernetes.client import KubernetesClient
from virtflow.runtime.settings import Adapter

Json = dict[str, Any]


class Double:
    """``answers`` are lists by path, in turn, the last one again and again; a number is an HTTP status. ``events`` are what watches bring."""

    def __init__(self) -> None:
        """Has nothing: every path is 404."""
        self.answers: Final[dict[str, deque[Json | int]]] = {}
        self.events: Final[asyncio.Queue[Json | None]] = asyncio.Queue()
        self.requests: Final[list[tuple[str, dict[str, str]]]] = []
        self.reviews: Final[list[Json]] = []
        self.allowed = True
        self.watch_status = 200

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        self.requests.append((request.path, dict(request.query)))
        if request.method == "POST":
            self.reviews.append(await request.json())
            return web.json_response({"status": {"allowed": self.allowed}})
        if "watch" in request.query:
            return await self._watch(request)
        answers = self.answers.get(request.path)
        if not answers:
            return web.Response(status=404)
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        return web.Response(status=answer) if isinstance(answer, int) else web.json_response(answer)

    def watches(self) -> list[str]:
        """The versions that watches began at."""
        return [query["resourceVersion"] for _, query in self.requests if "watch" in query]

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """Sends events until one is None, which ends the watch."""
        if self.watch_status != 200:
            return web.Response(status=self.watch_status)
        response = web.StreamResponse()
        await response.prepare(request)
        while (told := await self.events.get()) is not None:
            await response.write(json.dumps(told).encode() + b"\n")
        return response


@asynccontextmanager
async def served(double: Double) -> AsyncIterator[KubernetesClient]:
    """A client of the double."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", double.handle)
    async with TestServer(application) as server:
        settings = Adapter(kubernetes_url=str(server.make_url("/")), kubernetes_ca_file="", kubernetes_token_file="")
        async with KubernetesClient(settings) as client:
            yield client


def listing(version: str, *names: str, more: str = "") -> Json:
    """A page of a list."""
    return {"metadata": {"resourceVersion": version, "continue": more}, "items": [thing(name, version) for name in names]}


def thing(name: str, version: str = "1") -> Json:
    """An object of namespace shop."""
    return {"metadata": {"namespace": "shop", "name": name, "resourceVersion": version}}


def change(kind: str, name: str, version: str) -> Json:
    """An event of a watch."""
    return {"type": kind, "object": thing(name, version)}
