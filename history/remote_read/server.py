"""`virtflow history serve`: answers a Prometheus' remote_read and its HTTP API from the tables. Loopback by default, bounded in every way."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from aiohttp import web

from virtflow.history.remote_read.api import Api
from virtflow.history.remote_read.evaluator import Evaluators
from virtflow.history.remote_read.ipc import Failure, Had, Head, Piece, Read, Whether
from virtflow.history.remote_read.processes import FailedError, Processes
from virtflow.history.remote_read.tenants import NotAllowedError, Tenants
from virtflow.history.remote_read.wanted import Pair, Wanted
from virtflow.history.storage.delta import Store
from virtflow.history.storage.errors import StorageError
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.lifecycle import Stop, end_when_late, in_background, notify, stop_event, until_stopped
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Settings
from virtflow.runtime.web.connections import Limits
from virtflow.runtime.web.server import Web, own_routes, text

READ: Final = "POST /api/v1/read"
INNER_LISTEN: Final = "127.0.0.1:0"
SAMPLES_WHOLE: Final = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
CHUNKS: Final = {"Content-Type": "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"}
READS: Final = 128
"""Requests that are answered or wait for it at a time: half of all connections, so that health always has one."""
OUTCOMES: Final = ("answered", "refused", "failed")
"""What becomes of a query: it is refused for what it asks or for who asks, and fails where the server or its storage can't answer."""
STATUS: Final = {Failure.REFUSED: 400, Failure.UNKNOWN_LABEL: 400, Failure.MEMORY: 400, Failure.DEFECT: 500}
"""What a client is answered; 503 for what another try may bring."""
TIDY_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 2.0
"""Pause before the storage is asked again for its tables."""

_LOG: Final = logging.getLogger("virtflow.history.remote_read.server")


def run(settings: Settings, stop: Stop) -> None:
    """Serves until ``stop`` is set; raises ``InputError`` where there are no tables, or the address can't be had.

    Storage that does not answer is waited for. A query that is under way, or that waits for storage that hangs, can't be ended: the process
    ends all the same.
    """
    end_when_late(stop)
    asyncio.run(_serve(Remote(settings), settings, stop))


class Remote:
    """The answers, worked out in processes of their own, so that the server itself always answers."""

    def __init__(self, settings: Settings) -> None:
        """Starts nothing yet; raises ``SettingError`` where tenants' tokens can't be read."""
        self._settings = settings
        self._seconds = settings.history.query_seconds
        self.tenants = Tenants(settings.history)
        self.metrics = OwnMetrics("history-serve")
        self.processes = Processes(settings, self.metrics)
        self._queries = self.metrics.counter("virtflow_history_serve_queries_total")
        self._samples = self.metrics.counter("virtflow_history_serve_samples_total")
        for outcome in OUTCOMES:
            self._queries.labels(outcome=outcome)  # at 0 from the start, so that increase() sees the first one
        self._unknown = self.metrics.counter("virtflow_history_serve_unknown_labels_total")
        self._spent = self.metrics.counter("virtflow_history_serve_seconds_total")
        self._values = self.metrics.counter("virtflow_history_serve_unknown_values_total")
        self._wanted = Wanted()
        self._looking: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._no_tables = "the storage has not answered yet"

    @property
    def missing(self) -> str:
        """What is missing before anything can be read, "" when nothing is."""
        return self._no_tables or self.processes.missing

    async def find_tables(self) -> None:
        """Returns once the tables can be opened; raises ``EnvironmentProblemError`` where there are none, or newer ones."""
        store = Store(self._settings.history)
        while True:
            try:
                await in_background(partial(store.open, SAMPLES))
            except StorageError as error:
                self._no_tables = str(error)
                _LOG.warning("waiting: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._no_tables = ""
                return

    async def read(self, request: web.Request) -> web.StreamResponse:
        """One remote_read request."""
        if self._under_way >= READS:
            return self._refused(503, f"{READS} requests are being answered; try again")
        self._under_way += 1
        try:
            return await self._read(request)
        except NotAllowedError as error:
            return self._refused(401, str(error))
        except FailedError as error:
            if error.why is Failure.UNKNOWN_LABEL:
                self._unknown.inc()
            return self._refused(STATUS.get(error.why, 503), str(error))
        finally:
            self._under_way -= 1

    async def _read(self, request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        began = loop.time()
        job = Read(self.tenants.of(request.headers), self._seconds, await request.read())
        async with self.processes.asked(job) as frames:
            frames.hang_up = lambda: _hang_up(request)
            head = await frames.next()
            assert isinstance(head, Head)
            self._queries.labels(outcome="answered").inc(head.queries)
            self._samples.inc(head.samples)
            if not self.tenants.is_own(request.headers):
                self._watch((job.tenant, request.remote or "?"), head)
            response = web.StreamResponse(headers=CHUNKS if head.chunks else SAMPLES_WHOLE)
            await response.prepare(request)
            try:
                while isinstance(piece := await frames.next(), Piece):
                    await response.write(piece.data)
            except FailedError as error:
                _LOG.warning("an answer is broken off: %s", error)
                _hang_up(request)
                return response
            await response.write_eof()
        self._spent.inc(loop.time() - began)
        return response

    def _watch(self, who: Pair, head: Head) -> None:
        """Has it looked up whether a value is known that a client's queries keep asking for in vain."""
        for pair in self._wanted.take(who, head.wanted):
            looking = asyncio.create_task(self._look_up(who, pair))
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)
        if self._wanted.unknown(who):
            self._values.inc(head.queries)

    async def _look_up(self, who: Pair, pair: Pair) -> None:
        try:
            async with self.processes.asked(Had(who[0], self._seconds, *pair)) as frames:
                found = await frames.next()
                assert isinstance(found, Whether)
        except FailedError as error:
            _LOG.debug("whether a series has ever had %s=%r is not known: %s", *pair, error)
            return
        if requests := self._wanted.answered(who, pair, had=found.yes):
            self._values.inc(requests)
            _LOG.warning(
                "the last %d requests of %s all want %s=%r, which no series of the history has ever had, and have no answer; where it is one of "
                "Prometheus' external_labels, set filter_external_labels: false in remote_read",
                requests,
                who[1],
                *pair,
            )

    async def read_own(self, request: web.Request) -> web.StreamResponse:
        """One remote_read request of our own evaluator; nobody else knows the secret."""
        if not self.tenants.is_own(request.headers):
            return self._refused(401, "this port is for the own evaluator")
        return await self.read(request)

    def api(self, evaluators: Evaluators) -> Api:
        """The HTTP API beside remote_read."""
        return Api(self._settings, self.tenants, evaluators, self.processes)

    def _refused(self, status: int, why: str) -> web.Response:
        failed = status >= 500  # noqa: PLR2004, HTTP's own
        self._queries.labels(outcome="failed" if failed else "refused").inc()
        _LOG.warning("a query %s: %s", "fails" if failed else "is refused", why)
        return text(why, status=status)


def _hang_up(request: web.Request) -> None:
    """Ends a connection without the end of its answer, so that nobody takes the beginning for the whole."""
    if request.transport is not None:
        request.transport.abort()


async def _serve(remote: Remote, settings: Settings, stop: Stop) -> None:
    stopped = stop_event(stop)
    limits = Limits(answer_timeout_seconds=settings.history.query_seconds + 15.0)
    evaluators = Evaluators(settings.history, remote.tenants, remote.metrics)
    routes = {**own_routes(remote.metrics, lambda: remote.missing), READ: remote.read, **remote.api(evaluators).routes()}
    guard = Guard(settings.web, remote.metrics, trusted=remote.tenants.knows)
    server = Web(settings.history.serve_listen, routes, remote.metrics, limits, guard)
    # Our own evaluators read on a port of their own: they have no client certificate, and need none on loopback, where a secret of this run
    # lets them in.
    inner = Web(INNER_LISTEN, {READ: remote.read_own}, OwnMetrics("history-serve"), limits)
    await server.start()
    await inner.start()
    await remote.processes.start()
    evaluators.reading(inner.address)
    tidying = asyncio.create_task(_tidy(evaluators))
    finding = asyncio.create_task(_find_tables(remote, f"remote_read and PromQL at {server.url} from {settings.history.path}"))
    try:
        await until_stopped(stopped, [finding])
    finally:
        notify("STOPPING=1")
        tidying.cancel()
        finding.cancel()
        await remote.processes.close()
        await server.stop()
        await evaluators.close()
        await inner.stop()


async def _find_tables(remote: Remote, ready: str) -> None:
    """Says that it is ready once there are tables; then never ends by itself."""
    await remote.find_tables()
    _LOG.info("%s", ready)
    notify("READY=1")
    await asyncio.Event().wait()


async def _tidy(evaluators: Evaluators) -> None:
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        await evaluators.tidy()
