"""The HTTP server: routes, limits, and what it says when the address can't be had."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web

from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.web.connections import Limits
from virtflow.runtime.web.server import Handler, Web, own_routes, split_address, text
from virtflow.schemas.errors import EnvironmentProblemError

LOOPBACK = "127.0.0.1:0"


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(bounded())


@asynccontextmanager
async def serving(routes: dict[str, Handler] | None = None, limits: Limits | None = None) -> AsyncIterator[tuple[Web, OwnMetrics]]:
    metrics = OwnMetrics("exporter")
    server = Web(LOOPBACK, own_routes(metrics, lambda: "") if routes is None else routes, metrics, limits)
    await server.start()
    try:
        yield server, metrics
    finally:
        await server.stop()


async def dial(server: Web, said: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*split_address(server.address))
    writer.write(said)
    await writer.drain()
    return reader, writer


async def close(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            continue


class Endless:
    """An answer without end, and the events that it has begun and is over with."""

    def __init__(self) -> None:
        """Not asked for yet."""
        self.begun = asyncio.Event()
        self.dropped = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self.begun.set()
        try:
            while True:
                await response.write(b"x" * 65_536)
        finally:
            self.dropped.set()


def test_serves_its_routes_and_health() -> None:
    """/healthz is there without being asked for; unknown paths are 404 and other methods 405."""

    async def scenario() -> None:
        async with serving() as (server, _), ClientSession(f"http://{server.address}") as client:
            for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/nothing", 404)):
                async with client.get(path) as answer:
                    assert answer.status == status
                    assert answer.headers["Server"] == "virtflow"
            async with client.post("/metrics") as answer:
                assert answer.status == 405
            async with client.get("/metrics") as answer:
                body = await answer.text()
                assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
                assert 'virtflow_web_requests_total{status="404"} 1.0' in body

    run(scenario)


def test_readiness_says_what_is_missing() -> None:
    """503 with the reason until nothing is missing."""

    async def scenario() -> None:
        missing = ["broker localhost:9092 does not answer"]
        metrics = OwnMetrics("processors")
        routes = own_routes(metrics, lambda: missing[0] if missing else "")
        async with serving(routes) as (server, _), ClientSession(f"http://{server.address}") as client:
            async with client.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (503, "not ready: broker localhost:9092 does not answer\n")
            missing.clear()
            async with client.get("/readyz") as answer:
                assert answer.status == 200

    run(scenario)


def test_a_taken_port_is_named_with_its_fix() -> None:
    """The error names the address, why, and what to do."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(EnvironmentProblemError) as caught:
                await Web(listen, {}, OwnMetrics("exporter")).start()
        assert (caught.value.thing, caught.value.value, caught.value.why) == ("listening address", listen, "already in use")
        assert "--listen" in caught.value.fix

    run(scenario)


@pytest.mark.parametrize("listen", ["9177", ":9177", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000"])
def test_no_address_is_refused(listen: str) -> None:
    with pytest.raises(EnvironmentProblemError):
        split_address(listen)


def test_an_address_of_another_host_is_refused() -> None:
    """TEST-NET-1 is nobody's."""

    async def scenario() -> None:
        with pytest.raises(EnvironmentProblemError, match=r"listening address 192\.0\.2\.1:9177"):
            await Web("192.0.2.1:9177", {}, OwnMetrics("exporter")).start()

    run(scenario)


def test_half_requests_make_room_for_a_whole_one() -> None:
    """At the limit the oldest half request is told 503 and closed; the newcomer is served."""

    async def scenario() -> None:
        async with serving(limits=Limits(connections=4)) as (server, metrics):
            halves = [await dial(server, b"GET /metrics HTTP/1.1\r\nHost: x\r\n") for _ in range(4)]
            async with ClientSession(f"http://{server.address}") as client, client.get("/healthz") as answer:
                assert answer.status == 200
            assert (await halves[0][0].read()).startswith(b"HTTP/1.1 503 ")
            assert metrics.value("virtflow_web_connections_refused_total") == 1.0
            await close(*(writer for _, writer in halves))

    run(scenario)


def test_excess_is_refused_while_all_are_being_answered() -> None:
    """A newcomer without a place reads 503, whether it has spoken or not."""

    async def scenario() -> None:
        release = asyncio.Event()
        begun = asyncio.Semaphore(0)

        async def slow(request: web.Request) -> web.Response:
            del request
            begun.release()
            await release.wait()
            return text("done")

        async with serving({"/slow": slow}, Limits(connections=2)) as (server, _):
            busy = [await dial(server, b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") for _ in range(2)]
            for _ in busy:
                await begun.acquire()
            reader, writer = await dial(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            silent, silent_writer = await dial(server)
            assert (await silent.read()).startswith(b"HTTP/1.1 503 ")
            release.set()
            for got, _ in busy:
                assert (await got.read()).endswith(b"done\n")
            await close(writer, silent_writer, *(one for _, one in busy))

    run(scenario)


def test_a_half_request_times_out() -> None:
    """A first request that never ends is answered 408 and closed."""

    async def scenario() -> None:
        async with serving(limits=Limits(request_timeout_seconds=0.2)) as (server, _):
            reader, writer = await dial(server, b"GET /healthz HTTP/1.1\r\nHo")
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
            silent, silent_writer = await dial(server)
            assert (await silent.read()).startswith(b"HTTP/1.1 408 ")
            await close(writer, silent_writer)

    run(scenario)


def test_an_idle_connection_is_closed() -> None:
    """Kept alive after an answer, but not indefinitely."""

    async def scenario() -> None:
        async with serving(limits=Limits(request_timeout_seconds=0.4, idle_seconds=0.2)) as (server, _):
            reader, writer = await dial(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.read()).endswith(b"ok\n")
            await close(writer)

    run(scenario)


def test_a_reader_that_takes_nothing_is_dropped() -> None:
    """The answer must be taken within the request's time."""

    async def scenario() -> None:
        endless = Endless()

        async with serving({"/endless": endless.handle}, Limits(request_timeout_seconds=0.3)) as (server, _):
            _, writer = await dial(server, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            await endless.dropped.wait()
            await close(writer)

    run(scenario)


def test_a_stalled_reader_makes_room() -> None:
    """At the limit, whoever takes nothing of its answer gives way to a newcomer, long before its time is over."""

    async def scenario() -> None:
        endless = Endless()

        async with serving({"/endless": endless.handle}, Limits(connections=1)) as (server, _):
            _, writer = await dial(server, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            await endless.begun.wait()
            statuses = [503]
            while statuses[-1] == 503:
                async with ClientSession(f"http://{server.address}") as client, client.get("/healthz") as answer:
                    statuses.append(answer.status)
            assert statuses[-1] == 200
            await endless.dropped.wait()
            await close(writer)

    run(scenario)


def test_a_header_beyond_the_limit_is_refused() -> None:
    """400, the connection closed, and no line in the log."""

    async def scenario() -> None:
        async with serving() as (server, _):
            reader, writer = await dial(server, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")
            assert b" 400 " in (await reader.read()).split(b"\r\n")[0]
            await close(writer)

    run(scenario)


def test_stopping_twice_is_fine() -> None:
    async def scenario() -> None:
        async with serving() as (server, _):
            await server.stop()

    run(scenario)


async def taken(request: web.Request) -> web.Response:
    """How many bytes the body has."""
    return text(str(len(await request.read())))


def test_bodies_that_do_not_come_make_room() -> None:
    """A request is complete when its body is: until then it gives way to others."""

    async def scenario() -> None:
        async with serving({"POST /api/v1/read": taken}, Limits(connections=4)) as (server, _):
            halves = [await dial(server, b"POST /api/v1/read HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx") for _ in range(4)]
            async with ClientSession(f"http://{server.address}") as client:
                async with client.get("/healthz") as answer:
                    assert answer.status == 200
                async with client.post("/api/v1/read", data=b"123") as answer:
                    assert await answer.text() == "3\n"
            assert (await halves[0][0].read()).startswith(b"HTTP/1.1 503 ")
            await close(*(writer for _, writer in halves))

    run(scenario)


@pytest.mark.parametrize("head", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_a_body_has_the_request_s_time(head: bytes) -> None:
    """Not that of an answer, which may be far longer."""

    async def scenario() -> None:
        limits = Limits(request_timeout_seconds=0.2, answer_timeout_seconds=3600)
        async with serving({"POST /api/v1/read": taken}, limits) as (server, _):
            reader, writer = await dial(server, b"POST /api/v1/read HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
            await close(writer)

    run(scenario)


def test_a_body_that_no_route_takes_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with serving({"POST /api/v1/read": taken}) as (server, _):
            for line, status in ((b"POST /nothing", b"404"), (b"POST /healthz", b"405"), (b"GET /healthz", b"200")):
                reader, writer = await dial(server, line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
                assert (await reader.readline()).split()[1] == status
                await close(writer)

    run(scenario)


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (b"Content-Encoding: gzip\r\nContent-Length: 8", b"not gzip", b"400"),
        (b"Content-Encoding: deflate\r\nContent-Length: 9", b"no stream", b"400"),
        (b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n", b"400"),
        (b"Transfer-Encoding: chunked", b"3\r\nabc\r\nno\r\n", b"400"),
        (b"Content-Encoding: gzip\r\nContent-Length: 23", gzip.compress(b"abc", mtime=0), b"200"),
    ],
    ids=["no gzip", "no deflate", "chunks of no gzip", "no chunks", "gzip"],
)
def test_a_body_that_is_not_what_its_headers_say(head: bytes, body: bytes, status: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Is the client's fault: refused with the reason, without a traceback in the log, and the connection ends."""

    async def scenario() -> None:
        async with serving({"POST /api/v1/read": taken}) as (server, _):
            reader, writer = await dial(server, b"POST /api/v1/read HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + body)
            assert (await reader.readline()).split()[1] == status
            if status == b"400":
                told = await reader.read()
                assert told.count(b"\r\n\r\n") == 1
                assert b"aiohttp" not in told
            await close(writer)

    run(scenario)
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: no\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n",
        b"POST /api/v1/read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n",
        b"POST /api/v1/read HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 300_000,
        b"GET /defect HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
    ids=["TLS", "version", "length", "header", "chunk", "too large", "defect", "nothing"],
)
def test_no_answer_names_a_version(said: bytes) -> None:
    """Not of Python, not of a library; and nothing of what was sent comes back."""

    async def defect(request: web.Request) -> web.StreamResponse:
        raise RuntimeError(str(request.path))

    async def scenario() -> None:
        async with serving({"POST /api/v1/read": taken, "/defect": defect}) as (server, _):
            reader, writer = await dial(server, said)
            told = await reader.read()
            assert told.startswith(b"HTTP/1.")
            assert b"\r\nServer: virtflow\r\n" in told
            assert b"aiohttp" not in told
            assert b"Python" not in told
            assert b"no header" not in told
            await close(writer)

    run(scenario)
