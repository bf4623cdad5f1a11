"""`virtflow history serve`: answers a Prometheus' remote_read from the tables. Loopback by default, bounded in every way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import web

from virtflow.history.remote_read.reader import LimitError, Reader, UnknownLabelError
from virtflow.history.remote_read.wire import Answer, ProtocolError, ReadRequest, Series, chunk_frames, read_request, samples_answer
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.runtime.lifecycle import Stop, notify
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Settings
from virtflow.runtime.web import Web, own_routes, text
from virtflow.runtime.web_connections import Limits
from virtflow.schemas.errors import InputError

READ: Final = "POST /api/v1/read"
SAMPLES_TYPE: Final = "application/x-protobuf"
CHUNKS_TYPE: Final = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
QUERIES_AT_ONCE: Final = 2
WRITE_BYTES: Final = 1 << 20

_LOG: Final = logging.getLogger("virtflow.history.remote_read.server")


def run(settings: Settings, stop: Stop) -> None:
    """Serves until ``stop`` is set; raises ``InputError`` where the tables or the address can't be had."""
    store = Store(settings.history)
    store.open(SAMPLES)
    asyncio.run(_serve(Remote(settings, store), settings, stop))


class Remote:
    """The answers, worked out in a few threads, so that the server itself always answers."""

    def __init__(self, settings: Settings, store: Store) -> None:
        """Opens nothing yet."""
        self._seconds = settings.history.query_seconds
        self._reader = Reader(store, settings)
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
            asked = read_request(await request.read())
            work = loop.run_in_executor(self._threads, self._results, asked)
            results = await asyncio.wait_for(work, self._seconds)
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

    def _results(self, asked: ReadRequest) -> list[list[Series]]:
        return [self._reader.read(query) for query in asked.queries]

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
    routes = {**own_routes(remote.metrics, lambda: ""), READ: remote.read}
    server = Web(settings.history.serve_listen, routes, remote.metrics, limits)
    await server.start()
    _LOG.info("remote_read at http://%s/api/v1/read from %s", server.address, settings.history.path)
    notify("READY=1")
    try:
        await stopped.wait()
    finally:
        notify("STOPPING=1")
        await server.stop()
        remote.close()
