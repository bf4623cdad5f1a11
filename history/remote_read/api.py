"""Prometheus' HTTP API on the history: PromQL goes to an existing engine, labels and metadata come from the tables and the catalogue.

Source: Prometheus' documentation, "HTTP API".
"""

from __future__ import annotations

import json
import logging
import math
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, Final

import aiohttp
from aiohttp import web

from virtflow.history.remote_read.evaluator import EvaluatorError, Evaluators
from virtflow.history.remote_read.ipc import Names, Values
from virtflow.history.remote_read.processes import FailedError, Processes
from virtflow.history.remote_read.reading.labels import NAMES, exported_name, label_names
from virtflow.history.remote_read.tenants import NotAllowedError, Tenants
from virtflow.runtime.settings import Settings
from virtflow.runtime.web.server import Handler
from virtflow.schemas.catalogue.metrics import BY_NAME
from virtflow.schemas.errors import InputError

EVALUATED: Final = ("query", "query_range", "series", "format_query", "parse_query", "status/buildinfo")
"""What goes to the engine as it is."""
LABEL_VALUES: Final = 10_000
"""Values of a label that are returned at most."""
REQUESTS: Final = 64
"""Requests that are answered at a time, a quarter of all connections."""
SERIES_BYTES: Final = 64 << 20
"""Of the engine's list of series, of which labels are made."""
DAYS_BACK: Final = 1
"""How far back series and labels are looked for where no start is given."""

_LOG: Final = logging.getLogger("virtflow.history.remote_read.api")


class Api:
    """The handlers of ``/api/v1/...``."""

    def __init__(self, settings: Settings, tenants: Tenants, evaluators: Evaluators, processes: Processes) -> None:
        """``processes`` read the tables."""
        self._settings = settings
        self._tenants = tenants
        self._evaluators = evaluators
        self._processes = processes
        self._under_way = 0

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        found: dict[str, Handler] = {}
        for path in EVALUATED:
            found[f"/api/v1/{path}"] = found[f"POST /api/v1/{path}"] = self._answered(self._evaluate)
        for path, handler in (("labels", self._labels), ("label/{name}/values", self._values), ("metadata", self._metadata)):
            found[f"/api/v1/{path}"] = self._answered(handler)
        found["POST /api/v1/labels"] = self._answered(self._labels)
        return found

    def _answered(self, handler: Callable[[web.Request, str], Awaitable[web.StreamResponse]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if self._under_way >= REQUESTS:
                return _failed(503, "unavailable", f"{REQUESTS} requests are being answered; try again")
            self._under_way += 1
            try:
                return await handler(request, self._tenants.of(request.headers))
            except NotAllowedError as error:
                return _failed(401, "unauthorized", str(error))
            except (EvaluatorError, FailedError) as error:
                _LOG.warning("%s", error)
                return _failed(503, "unavailable", str(error))
            except InputError as error:
                return _failed(400, "bad_data", str(error))
            finally:
                self._under_way -= 1

        return answer

    async def _evaluate(self, request: web.Request, tenant: str) -> web.StreamResponse:
        """The engine's answer, passed on as it comes: it may be large."""
        query, body = request.query_string, await request.read() if request.method == "POST" else None
        path = request.path.removeprefix("/api/v1/")
        if path == "series":
            query, body = "", urllib.parse.urlencode(_bounded(await _parameters(request)), doseq=True).encode()
        async with self._evaluators.asked(tenant, path, query, body) as reply:
            response = web.StreamResponse(status=reply.status, headers={"Content-Type": "application/json"})
            await response.prepare(request)
            try:
                async for piece in reply.content.iter_any():
                    await response.write(piece)
            except (aiohttp.ClientError, TimeoutError) as error:
                _LOG.warning("an answer of the engine is broken off: %s", type(error).__name__)
                if request.transport is not None:
                    request.transport.abort()  # without an end, so that nobody takes the beginning for the whole
                return response
            await response.write_eof()
        return response

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
        job = Values(tenant, self._settings.history.query_seconds, name, *_bounds(asked), LABEL_VALUES)
        async with self._processes.asked(job) as frames:
            found = await frames.next()
            assert isinstance(found, Names)
        return _good(found.names)

    async def _metadata(self, request: web.Request, tenant: str) -> web.Response:
        del tenant
        wanted = request.query.get("metric", "")
        names = [name for name in {exported_name(column): None for column in NAMES} if not wanted or name == wanted]
        rows = {name: [{"type": str(BY_NAME[name].type), "help": BY_NAME[name].help, "unit": BY_NAME[name].unit}] for name in names}
        return _good(rows)

    async def _series(self, tenant: str, asked: dict[str, list[str]]) -> tuple[int, Iterable[dict[str, str]], bytes]:
        query = urllib.parse.urlencode([(key, value) for key in ("match[]", "start", "end") for value in _bounded(asked).get(key, [])])
        async with self._evaluators.asked(tenant, "series", query, None) as reply:
            status, answer = reply.status, await _whole(reply)
        return status, json.loads(answer).get("data", []) if status == 200 else [], answer  # noqa: PLR2004, HTTP's own


async def _whole(reply: aiohttp.ClientResponse) -> bytes:
    """An answer of the engine; raises ``InputError`` beyond ``SERIES_BYTES``."""
    found = bytearray()
    async for piece in reply.content.iter_any():
        found += piece
        if len(found) > SERIES_BYTES:
            raise InputError("too many series to list their labels; name a metric or VMs in match[]")
    return bytes(found)


async def _parameters(request: web.Request) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    pairs = [*request.query.items()]
    if request.method == "POST":
        pairs += urllib.parse.parse_qsl((await request.read()).decode("utf-8", "replace"))
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _bounds(asked: dict[str, list[str]]) -> tuple[float, float]:
    """From when and until when series and labels are looked for, Unix seconds."""
    start, end = (_moment(asked, key) for key in ("start", "end"))
    end = time.time() if end is None else end
    return end - DAYS_BACK * 86_400 if start is None else start, end


def _bounded(asked: dict[str, list[str]]) -> dict[str, list[str]]:
    """The parameters with a start and an end: without them the engine looks at all times there can be, which is more than is ever read."""
    start, end = _bounds(asked)
    return {"start": [f"{start:.3f}"], "end": [f"{end:.3f}"], **asked}


def _moment(asked: dict[str, list[str]], key: str) -> float | None:
    """A time as the API takes it: Unix seconds or RFC 3339; raises ``InputError``."""
    if key not in asked:
        return None
    try:
        if math.isfinite(number := float(asked[key][0])):
            return number
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(asked[key][0]).timestamp()
    except (ValueError, OverflowError) as error:
        raise InputError(f"{key} is no time: {asked[key][0][:40]!r}") from error


def _told(status: int, answer: bytes, data: list[str]) -> web.Response:
    """The engine's own words where it refused, else the data."""
    return _good(data) if status == 200 else web.Response(body=answer, status=status, content_type="application/json")  # noqa: PLR2004, HTTP's own


def _good(data: Any) -> web.Response:  # noqa: ANN401, whatever JSON holds
    return web.json_response({"status": "success", "data": data})


def _failed(status: int, kind: str, why: str) -> web.Response:
    return web.json_response({"status": "error", "errorType": kind, "error": why}, status=status)
