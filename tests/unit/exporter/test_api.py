"""The API over HTTP: ETags, compression, errors, and the stream of events with its limits."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout

from tests.support.fleet_samples import busy, fleet_records, migration
from tests.support.served_exporter import exporter_of, get, served
from tests.support.vm_samples import sample, status, uuid
from virtflow.exporter.service import Exporter
from virtflow.runtime.lifecycle import Stop

SECONDS = 20.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An exporter with 60 VMs."""
    exporter = exporter_of()
    exporter.take([*fleet_records(60), migration(1)])
    with served(exporter) as address:
        yield address


@pytest.mark.parametrize(
    "path", ["fleet", "vms", f"vms/{uuid(1)}", "nodes", "nodes/node-1", "migrations", "events", "targets", "openapi.json"]
)
def test_every_endpoint_answers_in_json(url: str, path: str) -> None:
    code, headers, body = get(f"{url}/api/v1/{path}")
    assert (code, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, "application/json", "nosniff")
    assert headers["Cache-Control"] == "no-cache"
    assert json.loads(body)


def test_an_answer_that_has_not_changed_is_not_sent_again(url: str) -> None:
    """The ETag belongs to the whole address, and changes with a new sample."""
    exporter = exporter_of()
    exporter.take([sample()])
    with served(exporter) as mine:
        tag = get(f"{mine}/api/v1/vms?limit=5")[1]["ETag"]
        assert tag.startswith('W/"')
        # Every ten seconds the tag is another one: one of two requests in a row is in the same ten.
        again = [get(f"{mine}/api/v1/vms?limit=5", **{"If-None-Match": tag}) for _ in range(2)]
        tag = again[0][1]["ETag"]
        assert (304, b"") in [(code, body) for code, _, body in [*again, get(f"{mine}/api/v1/vms?limit=5", **{"If-None-Match": tag})]]
        assert get(f"{mine}/api/v1/vms?limit=6", **{"If-None-Match": tag})[0] == 200
        exporter.take([sample(sequence=1)])
        assert until(lambda: get(f"{mine}/api/v1/vms?limit=5", **{"If-None-Match": tag}), lambda found: found[0] == 200)[0] == 200
    assert get(f"{url}/api/v1/fleet", **{"If-None-Match": tag})[0] == 200


def until(ask: Callable[[], Any], good: Callable[[Any], bool]) -> Any:  # noqa: ANN401, what is asked
    """Asks until the answer is good, 20 seconds at most; the last answer."""
    ends = threading.Event()
    threading.Timer(SECONDS, ends.set).start()
    while not good(found := ask()) and not ends.is_set():
        pass
    return found


def test_large_answers_are_packed_for_those_who_accept(url: str) -> None:
    plain, packed = get(f"{url}/api/v1/nodes"), get(f"{url}/api/v1/vms", **{"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain[1]
    assert packed[1]["Content-Encoding"] == "gzip"
    assert packed[1]["Vary"] == "Accept-Encoding"
    assert len(json.loads(gzip.decompress(packed[2]))["items"]) == 60


@pytest.mark.parametrize(
    ("path", "parameter", "value"),
    [
        ("vms?sort=bogus", "sort", "bogus"),
        ("vms?limit=0", "limit", "0"),
        ("nodes?sort=cpu&x=1", "x", "1"),
        ("migrations?after=zz", "after", "zz"),
        ("events?kind=x", "kind", "x"),
        ("fleet?x=y", "x", "y"),
    ],
)
def test_a_bad_parameter_is_named(url: str, path: str, parameter: str, value: str) -> None:
    code, headers, body = get(f"{url}/api/v1/{path}")
    error = json.loads(body)["error"]
    assert (code, headers["Content-Type"]) == (400, "application/json")
    assert (error["parameter"], error["value"]) == (parameter, value)
    assert error["allowed"]
    assert error["message"].startswith(f"{parameter}='{value}' is not allowed")


@pytest.mark.parametrize("path", ["vms/nobody", "nodes/nowhere", "vms/%3Cscript%3E"])
def test_what_is_not_there_is_404(url: str, path: str) -> None:
    code, _, body = get(f"{url}/api/v1/{path}")
    assert code == 404
    assert "there is no" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("path", ["/api/v1/", "/api/v1/vms/", "/api/v1/vm", "/api/v2/fleet", "/api/v1/vms/a/history/b"])
def test_a_path_of_no_endpoint_is_an_error_like_all_others(url: str, path: str) -> None:
    status, headers, body = get(f"{url}{path}")
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert json.loads(body)["error"]["message"] == f"there is no '{path}'; /api/v1/openapi.json names all paths"


def test_the_page_can_be_left_out() -> None:
    """Then / is the page of links, and there is no API."""
    exporter = exporter_of(fleet_page=False)
    exporter.take([sample()])
    with served(exporter) as mine:
        assert get(f"{mine}/api/v1/fleet")[0] == 404
        assert b"This exporter" in get(f"{mine}/")[2]
        assert get(f"{mine}/static/fleet.css")[0] == 200


@asynccontextmanager
async def stream(url: str, **headers: str) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """The events of a stream, each a dictionary of its fields."""
    timeout = ClientTimeout(total=None, sock_read=SECONDS)
    async with ClientSession(timeout=timeout, headers={"Accept": "text/event-stream"} | headers) as client, client.get(url) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"

        async def events() -> AsyncIterator[dict[str, str]]:
            found: dict[str, str] = {}
            async for line in answer.content:
                text = line.decode().rstrip("\n")
                if not text:
                    if found:
                        yield found
                    found = {}
                elif not text.startswith(":"):
                    name, _, value = text.partition(": ")
                    found[name] = value

        yield events()


async def opened(exporter: Exporter) -> None:
    """Waits until changes count: the service opens the log once the fleet is known."""
    ready = asyncio.Event()
    loop, was = asyncio.get_running_loop(), exporter.fleet.changes.open

    def open_() -> None:
        was()
        loop.call_soon_threadsafe(ready.set)

    exporter.fleet.changes.open = open_  # type: ignore[method-assign]
    await ready.wait()


def test_a_stream_goes_on_where_the_client_left_off() -> None:
    """Each event once, with its id; after a break those that came meanwhile."""
    exporter = exporter_of()
    exporter.take([sample(), status()])

    async def follow(url: str) -> None:
        await opened(exporter)
        async with stream(f"{url}/api/v1/events") as events:
            assert await anext(events) == {"retry": "2000"}
            exporter.take([sample(sequence=1, state=3, state_reason=1)])
            first = await anext(events)
            assert (first["event"], json.loads(first["data"])["after"]) == ("vm_state", "paused")
            exporter.take([sample(sequence=2, state=3, state_reason=1, responsive=0)])
            second = await anext(events)
            assert second["event"] == "vm_stuck"
        exporter.take([sample(sequence=3, responsive=1)])
        async with stream(f"{url}/api/v1/events", **{"Last-Event-ID": second["id"]}) as events:
            await anext(events)
            kinds = [(await anext(events))["event"] for _ in range(2)]
        assert kinds == ["vm_state", "vm_answers"]
        async with stream(f"{url}/api/v1/events?kind=vm_answers&after={first['id']}") as events:
            await anext(events)
            assert (await anext(events))["event"] == "vm_answers"
        async with stream(f"{url}/api/v1/events", **{"Last-Event-ID": "another-run-5"}) as events:
            lost = await anext(events)
            assert lost["event"] == "lost"
            assert (await anext(events))["event"] == "vm_state"

    with served(exporter) as url:
        asyncio.run(follow(url))


def test_streams_leave_connections_to_scrapes_and_end_with_the_service() -> None:
    """A quarter of the connections at most; the next one is told so. The service ends while they are open."""
    exporter = exporter_of(connections=8)
    exporter.take([sample()])

    async def crowd(url: str, stop: Callable[[], None]) -> None:
        async with stream(f"{url}/api/v1/events") as one, stream(f"{url}/api/v1/events") as two:
            await anext(one)
            await anext(two)
            async with ClientSession() as client, client.get(f"{url}/api/v1/events", headers={"Accept": "text/event-stream"}) as third:
                assert third.status == 503
                assert third.headers["Retry-After"] == "5"
            async with ClientSession() as client, client.get(f"{url}/metrics") as scrape:
                assert scrape.status == 200
            stop()
            assert [event async for event in one] == []

    stop = Stop()
    with served(exporter, stop) as url:
        asyncio.run(crowd(url, stop.set))


def test_a_stream_lasts_longer_than_an_answer_may_take() -> None:
    """Its client takes what is sent, so its connection is not overdue; heartbeats show that it is there, often enough."""
    exporter = exporter_of(request_timeout_seconds=0.3)
    exporter.take([busy(1, 0)])

    async def follow(url: str) -> None:
        async with ClientSession() as client, client.get(f"{url}/api/v1/events", headers={"Accept": "text/event-stream"}) as answer:
            lines = [await answer.content.readline() for _ in range(30)]
        assert lines.count(b": alive\n") > 10

    with served(exporter) as url:
        asyncio.run(follow(url))
