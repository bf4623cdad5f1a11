"""`virtflow history serve`: answers a Prometheus' remote_read and its HTTP API from the tables. Loopback by default, bounded in every way."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import web

from virtflow.history.remote_read.api import Api
from virtflow.history.remote_read.evaluator import Evaluators
from virtflow.history.remote_read.reader import LimitError, Reader, UnknownLabelError
from virtflow.history.remote_read.tenants import NotAllowedError, Tenants
from virtflow.history.remote_read.wire import Answer, ProtocolError, ReadRequest, Series, chunk_frames, read_request, samples_answer
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.lifecycle import Stop, end_when_late, notify
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Settings
from virtflow.runtime.web import Web, own_routes, text
from virtflow.runtime.web_connections import Limits
from virtflow.schemas.errors import InputError

READ: Final = "POST /api/v1/read"
INNER_LISTEN: Final = "127.0.0.1:0"
SAMPLES_TYPE: Final = "application/x-protobuf"
CHUNKS_TYPE: Final = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
QUERIES_AT_ONCE: Final = 2
WRITE_BYTES: Final = 1 << 20
READERS: Final = 256
"""Tenants whose readers are kept, with what they own."""
TIDY_SECONDS: Final = 30.0

_LOG: Final = logging.getLogger("virtflow.history.remote_read.server")


def run(settings: Settings, stop: Stop) -> None:
    """Serves until ``stop`` is set; raises ``InputError`` where the tables or the address can't be had.

    A query that is under way, or that waits for storage that hangs, can't be ended: the process ends all the same.
    """
    end_when_late(stop)
    Store(settings.history).open(SAMPLES)
    asyncio.run(_serve(Remote(settings), settings, stop))


class Remote:
    """The answers, worked out in a few threads, so that the server itself always answers."""

    def __init__(self, settings: Settings) -> None:
        """Opens nothing yet; raises ``SettingError`` where tenants' tokens can't be read."""
        self._settings = settings
        self._seconds = settings.history.query_seconds
        self._readers: OrderedDict[str, Reader] = OrderedDict()
        self.tenants = Tenants(settings.history)
        self._threads = ThreadPoolExecutor(QUERIES_AT_ONCE, thread_name_prefix="read")
        self.metrics = OwnMetrics("history-serve")
        self._queries = self.metrics.counter("virtflow_history_serve_queries_total")
        self._samples = self.metrics.counter("virtflow_history_serve_samples_total")
        self._unknown = self.metrics.counter("virtflow_history_serve_unknown_labels_total")
        self._spent = self.metrics.counter("virtflow_history_serve_seconds_total")

    async def read(self, request: web.Request) -> web.StreamResponse:
        """One remote_read request."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            reader = self.reader(self.tenants.of(request.headers))
            asked = read_request(await request.read())
            work = loop.run_in_executor(self._threads, _results, reader, asked)
            results = await asyncio.wait_for(work, self._seconds)
        except NotAllowedError as error:
            return self._refused(401, str(error))
        except UnknownLabelError as error:
            self._unknown.inc()
            return self._refused(400, str(error))
        except (ProtocolError, LimitError) as error:
            return self._refused(400, str(error))
        except TimeoutError:
            return self._refused(503, f"took more than {self._seconds:g} s (history.query_seconds)")
        except InputError as error:
            return self._refused(503, str(error))
        self._queries.labels(outcome="answered").inc(len(asked.queries))
        self._samples.inc(sum(len(series.times) for result in results for series in result))
        response = await self._answer(request, asked, results)
        self._spent.inc(loop.time() - began)
        return response

    async def read_own(self, request: web.Request) -> web.StreamResponse:
        """One remote_read request of our own evaluator; nobody else knows the secret."""
        if not self.tenants.is_own(request.headers):
            return self._refused(401, "this port is for the own evaluator")
        return await self.read(request)

    def reader(self, tenant: str) -> Reader:
        """The reader of a tenant's rows, kept for the next time; of all rows where the server knows no tenants ("")."""
        if tenant not in self._readers:
            if len(self._readers) >= READERS:
                self._readers.popitem(last=False)
            self._readers[tenant] = Reader(Store(self._settings.history, tenant), self._settings)
        self._readers.move_to_end(tenant)
        return self._readers[tenant]

    def api(self, evaluators: Evaluators) -> Api:
        """The HTTP API beside remote_read."""
        return Api(self._settings, self.tenants, evaluators, self.reader, self._threads)

    def _refused(self, status: int, why: str) -> web.Response:
        self._queries.labels(outcome="refused").inc()
        _LOG.warning("a query is refused: %s", why)
        return text(why, status=status)

    async def _answer(self, request: web.Request, asked: ReadRequest, results: list[list[Series]]) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        if Answer.CHUNKS not in asked.accepted:
            body = await loop.run_in_executor(self._threads, samples_answer, results)
            return web.Response(body=body, headers={"Content-Type": SAMPLES_TYPE, "Content-Encoding": "snappy"})
        response = web.StreamResponse(headers={"Content-Type": CHUNKS_TYPE})
        await response.prepare(request)
        pieces = _gathered(chunk_frames(results))
        while (piece := await loop.run_in_executor(self._threads, next, pieces, None)) is not None:
            await response.write(piece)
        await response.write_eof()
        return response

    def close(self) -> None:
        """Lets the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _results(reader: Reader, asked: ReadRequest) -> list[list[Series]]:
    return [reader.read(query) for query in asked.queries]


def _gathered(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Frames joined to pieces that are worth a write."""
    waiting, size = [], 0
    for frame in frames:
        waiting.append(frame)
        size += len(frame)
        if size >= WRITE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


async def _serve(remote: Remote, settings: Settings, stop: Stop) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def end() -> None:
        loop.call_soon_threadsafe(stopped.set)

    stop.subscribe(end)
    limits = Limits(request_timeout_seconds=settings.history.query_seconds + 15.0)
    evaluators = Evaluators(settings.history, remote.tenants)
    routes = {**own_routes(remote.metrics, lambda: ""), READ: remote.read, **remote.api(evaluators).routes()}
    guard = Guard(settings.web, remote.metrics, trusted=remote.tenants.knows)
    server = Web(settings.history.serve_listen, routes, remote.metrics, limits, guard)
    # Our own evaluators read on a port of their own: they have no client certificate, and need none on loopback, where a secret of this run
    # lets them in.
    inner = Web(INNER_LISTEN, {READ: remote.read_own}, OwnMetrics("history-serve"), limits)
    await server.start()
    await inner.start()
    evaluators.reading(inner.address)
    _LOG.info("remote_read and PromQL at %s from %s", server.url, settings.history.path)
    tidying = asyncio.create_task(_tidy(evaluators))
    notify("READY=1")
    try:
        await stopped.wait()
    finally:
        notify("STOPPING=1")
        tidying.cancel()
        await server.stop()
        await evaluators.close()
        await inner.stop()
        remote.close()


async def _tidy(evaluators: Evaluators) -> None:
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        await evaluators.tidy()
