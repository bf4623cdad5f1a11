"""The metrics APIs over HTTP. Each request is the front proxy's, or is refused; values are for users whom the cluster's rules let have them.

Discovery is answered from memory: neither Kafka nor the Kubernetes API has to be there.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import unquote

import msgspec
from aiohttp import web

from virtflow.adapter.answers import Answers, Moment
from virtflow.adapter.discovery import documents, status_of
from virtflow.adapter.kubernetes.access import Access
from virtflow.adapter.kubernetes.client import KubernetesError
from virtflow.adapter.kubernetes.front_proxy import FrontProxy, User, is_front_proxy, user_of
from virtflow.adapter.requests import CUSTOM, EXTERNAL, VERSIONS, Query, Reason, RefusedError, attributes_of, query_of
from virtflow.exporter.clocks import Clocks
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.web.server import Handler

JSON: Final = "application/json"
DISCOVERY, OTHER = "discovery", "other"
_KINDS: Final = {CUSTOM: "custom", EXTERNAL: "external"}


class Api:
    """The handler of all paths. ``missing`` says why no values are known yet, "" once they are; ``proxy`` is None while it is not known."""

    def __init__(  # noqa: PLR0913, PLR0917, what a request needs
        self, answers: Answers, access: Access, groups: tuple[str, ...], metrics: OwnMetrics, clocks: Clocks, missing: Callable[[], str]
    ) -> None:
        """``groups`` are the API groups that are served."""
        self._answers = answers
        self._access = access
        self._groups = groups
        self._documents = documents(groups)
        self._clocks = clocks
        self._missing = missing
        self._counted = metrics.counter("virtflow_adapter_answers_total")
        self._seconds = metrics.counter("virtflow_adapter_answer_seconds_total")
        self.proxy: FrontProxy | None = None
        self.prepare: Callable[[Query], Awaitable[Answers]] | None = None
        """Fetches what a query needs, where nothing is known before it comes; raises ``RefusedError``."""
        self.draining = False

    def routes(self) -> dict[str, Handler]:
        """One route for every path."""
        return {"/{path:.*}": self.handle}

    async def handle(self, request: web.Request) -> web.Response:
        """The document or the values that a path asks for, or a ``Status``."""
        parts = [unquote(part) for part in request.rel_url.raw_path.strip("/").split("/")]
        kind = _kind(parts, request.path in self._documents)
        try:
            body, code = await self._answered(request, parts), 200
        except RefusedError as error:
            body, code = status_of(error), error.reason.code
        self._counted.labels(api=kind, status=str(code)).inc()
        response = web.Response(body=body, status=code, content_type=JSON)
        # A connection from before the authority was known has no certificate, and the API server would go on using it.
        if self.draining or code == Reason.UNAUTHORIZED.code:
            response.force_close()
        return response

    async def _answered(self, request: web.Request, parts: list[str]) -> bytes:
        user = self._user(request)
        if document := self._documents.get(request.path.rstrip("/")):
            return document
        match parts:
            case ["apis", group, version, *rest] if group in self._groups and version in VERSIONS[group]:
                return await self._values(user, group, version, rest, request.query)
        raise RefusedError(Reason.NOT_FOUND, f"there is nothing at {request.path[:200]!r}")

    def _user(self, request: web.Request) -> User:
        """Who asks, as the front proxy says; raises ``RefusedError`` for anybody else."""
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        if self.proxy is None or not is_front_proxy(self.proxy, certificate):
            raise RefusedError(Reason.UNAUTHORIZED, "only the Kubernetes API server's front proxy is answered")
        user = user_of(self.proxy, request.headers.items())
        if user is None:
            raise RefusedError(Reason.UNAUTHORIZED, "the request names no user")
        return user

    async def _values(self, user: User, group: str, version: str, parts: list[str], parameters: Mapping[str, str]) -> bytes:
        try:
            allowed = await self._access.allowed(user, attributes_of(group, version, parts))
        except KubernetesError as error:
            raise RefusedError(Reason.UNAVAILABLE, f"whether {user.name} may see this is not known: {error}") from error
        if not allowed:
            raise RefusedError(Reason.FORBIDDEN, f"user {user.name!r} may not get {'/'.join(parts)[:200]!r}")
        query = query_of(group, version, parts, parameters)
        if missing := self._missing():
            raise RefusedError(Reason.UNAVAILABLE, f"no values are known yet: {missing}")
        begun = time.perf_counter()
        try:
            answers = self._answers if self.prepare is None else await self.prepare(query)
            return msgspec.json.encode(answers.answer(query, Moment(self._clocks.now(), self._clocks.wall())))
        finally:
            self._seconds.inc(time.perf_counter() - begun)


def _kind(parts: list[str], known: bool) -> str:  # noqa: FBT001, a helper of one caller
    if known:
        return DISCOVERY
    return _KINDS.get(parts[1], OTHER) if len(parts) > 1 and parts[0] == "apis" else OTHER
