"""Prometheus' HTTP API on the history: PromQL goes to an existing engine, labels and metadata come from the tables and the catalogue.

Source: Prometheus' documentation, "HTTP API".
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from datetime import datetime
from typing import Any, Final

from aiohttp import web

from virtflow.history.remote_read.evaluator import EvaluatorError, Evaluators
from virtflow.history.remote_read.labels import NAMES, exported_name, label_names
from virtflow.history.remote_read.reader import Reader
from virtflow.history.remote_read.tenants import NotAllowedError, Tenants
from virtflow.runtime.settings import Settings
from virtflow.runtime.web import Handler
from virtflow.schemas.catalogue.metrics import BY_NAME
from virtflow.schemas.errors import InputError

EVALUATED: Final = ("query", "query_range", "series", "format_query", "parse_query", "status/buildinfo")
"""What goes to the engine as it is."""
LABEL_VALUES: Final = 10_000
"""Values of a label that are returned at most."""
DAYS_BACK: Final = 1
"""How far back labels are looked for where no start is given."""

_LOG: Final = logging.getLogger("virtflow.history.remote_read.api")

ReaderOf = Callable[[str], Reader]


class Api:
    """The handlers of ``/api/v1/...``."""

    def __init__(self, settings: Settings, tenants: Tenants, evaluators: Evaluators, reader: ReaderOf, threads: Executor) -> None:
        """``reader`` gives a tenant's reader, which works in ``threads``."""
        self._settings = settings
        self._tenants = tenants
        self._evaluators = evaluators
        self._reader = reader
        self._threads = threads

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        found: dict[str, Handler] = {}
        for path in EVALUATED:
            found[f"/api/v1/{path}"] = found[f"POST /api/v1/{path}"] = self._answered(self._evaluate)
        for path, handler in (("labels", self._labels), ("label/{name}/values", self._values), ("metadata", self._metadata)):
            found[f"/api/v1/{path}"] = self._answered(handler)
        found["POST /api/v1/labels"] = self._answered(self._labels)
        return found

    def _answered(self, handler: Callable[[web.Request, str], Awaitable[web.Response]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request, self._tenants.of(request.headers))
            except NotAllowedError as error:
                return _failed(401, "unauthorized", str(error))
            except EvaluatorError as error:
                _LOG.warning("%s", error)
                return _failed(503, "unavailable", str(error))
            except InputError as error:
                return _failed(400, "bad_data", str(error))

        return answer

    async def _evaluate(self, request: web.Request, tenant: str) -> web.Response:
        body = await request.read() if request.method == "POST" else None
        path = request.path.removeprefix("/api/v1/")
        status, answer = await self._evaluators.ask(tenant, path, request.query_string, body)
        return web.Response(body=answer, status=status, content_type="application/json")

    async def _labels(self, request: web.Request, tenant: str) -> web.Response:
        asked = await _parameters(request)
        if asked.get("match[]"):
            status, series, answer = await self._series(tenant, asked)
            return _told(status, answer, sorted({name for labels in series for name in labels}))
        return _good(sorted(label_names(self._settings)))

    async def _values(self, request: web.Request, tenant: str) -> web.Response:
        name, asked = request.match_info["name"], await _parameters(request)
        if asked.get("match[]"):
            status, series, answer = await self._series(tenant, asked)
            return _told(status, answer, sorted({labels[name] for labels in series if name in labels})[:LABEL_VALUES])
        if name == "__name__":
            return _good(sorted({exported_name(name) for name in NAMES}))
        if name in self._settings.history.serve_labels:
            return _good([self._settings.history.serve_labels[name]])
        start, end = (_moment(asked, key) for key in ("start", "end"))
        end = time.time() if end is None else end
        start = end - DAYS_BACK * 86_400 if start is None else start
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._reader(tenant).values, name, start, end)
        return _good(found[:LABEL_VALUES])

    async def _metadata(self, request: web.Request, tenant: str) -> web.Response:
        del tenant
        wanted = request.query.get("metric", "")
        names = [name for name in {exported_name(column): None for column in NAMES} if not wanted or name == wanted]
        rows = {name: [{"type": str(BY_NAME[name].type), "help": BY_NAME[name].help, "unit": BY_NAME[name].unit}] for name in names}
        return _good(rows)

    async def _series(self, tenant: str, asked: dict[str, list[str]]) -> tuple[int, Iterable[dict[str, str]], bytes]:
        query = urllib.parse.urlencode([(key, value) for key in ("match[]", "start", "end") for value in asked.get(key, [])])
        status, answer = await self._evaluators.ask(tenant, "series", query, None)
        return status, json.loads(answer).get("data", []) if status == 200 else [], answer  # noqa: PLR2004, HTTP's own


async def _parameters(request: web.Request) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    pairs = [*request.query.items()]
    if request.method == "POST":
        pairs += urllib.parse.parse_qsl((await request.read()).decode("utf-8", "replace"))
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _moment(asked: dict[str, list[str]], key: str) -> float | None:
    """A time as the API takes it: Unix seconds or RFC 3339; raises ``InputError``."""
    if key not in asked:
        return None
    try:
        return float(asked[key][0])
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(asked[key][0]).timestamp()
    except ValueError as error:
        raise InputError(f"{key} is no time: {asked[key][0][:40]!r}") from error


def _told(status: int, answer: bytes, data: list[str]) -> web.Response:
    """The engine's own words where it refused, else the data."""
    return _good(data) if status == 200 else web.Response(body=answer, status=status, content_type="application/json")  # noqa: PLR2004, HTTP's own


def _good(data: Any) -> web.Response:  # noqa: ANN401, whatever JSON holds
    return web.json_response({"status": "success", "data": data})


def _failed(status: int, kind: str, why: str) -> web.Response:
    return web.json_response({"status": "error", "errorType": kind, "error": why}, status=status)
