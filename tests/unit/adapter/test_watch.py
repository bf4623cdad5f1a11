"""Objects are as the API server has them, over ends of watches, versions that are too old, and a server that is away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest

from tests.support.awaiting import until
from tests.support.kubernetes.double import Double, change, listing, served
from virtflow.adapter.kubernetes import watch as module
from virtflow.adapter.kubernetes.watch import WATCHED, Watch
from virtflow.adapter.objects import Objects, Resource

(PODS,) = (one for one in WATCHED if one.resource is Resource.PODS)
(POOLS,) = (one for one in WATCHED if one.resource is Resource.POOLS)
PATH: Final = PODS.paths[0]


class Watching:
    """A watch of a double, and what it has made of it."""

    def __init__(self, double: Double, watch: Watch, objects: Objects) -> None:
        """Runs already."""
        self.double = double
        self.watch = watch
        self.objects = objects
        self.lists = 0

    def names(self, resource: Resource = Resource.PODS) -> set[str]:
        return {one.metadata.name for one in self.objects.within(resource, "shop")}

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition, self.watch.problem)


def run(double_of: Callable[[], Double], script: Callable[[Watching], Coroutine[Any, Any, None]], watched: module.Watched = PODS) -> None:
    """Runs a script beside a watch."""

    async def body() -> None:
        double, objects = double_of(), Objects()
        async with served(double) as client:
            watching = Watching(double, Watch(client, watched, objects, lambda: None), objects)
            task = asyncio.create_task(watching.watch.run())
            try:
                await script(watching)
                assert not task.done()
            finally:
                task.cancel()
                double.events.put_nowait(None)
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(body())


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(module, "MISSING_SECONDS", 0.01)


def having(*answers: dict[str, Any] | int, path: str = PATH) -> Callable[[], Double]:
    def make() -> Double:
        double = Double()
        double.answers[path] = deque(answers)
        return double

    return make


def test_lists_then_follows() -> None:
    async def script(watching: Watching) -> None:
        await watching.until(lambda: watching.names() == {"a", "b"})
        assert watching.watch.problem == ""
        for told in (change("ADDED", "c", "11"), change("DELETED", "a", "12"), change("MODIFIED", "b", "13"), change("BOOKMARK", "", "20")):
            watching.double.events.put_nowait(told)
        await watching.until(lambda: watching.names() == {"b", "c"})
        assert watching.double.requests[0][1]["labelSelector"] == "kubevirt.io=virt-launcher"

    run(having(listing("10", "a", "b")), script)


def test_pages_are_put_together() -> None:
    async def script(watching: Watching) -> None:
        await watching.until(lambda: watching.names() == {"a", "b", "c"})
        assert [query.get("continue") for _, query in watching.double.requests if "watch" not in query] == [None, "x", "y"]

    run(having(listing("1", "a", more="x"), listing("1", "b", more="y"), listing("1", "c")), script)


def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    async def script(watching: Watching) -> None:
        watching.double.events.put_nowait(change("ADDED", "b", "42"))
        watching.double.events.put_nowait(None)
        await watching.until(lambda: watching.double.watches() == ["10", "42"])
        assert watching.names() == {"a", "b"}

    run(having(listing("10", "a")), script)


def test_a_version_that_is_too_old_lists_again() -> None:
    """What was deleted meanwhile is gone then."""

    async def script(watching: Watching) -> None:
        await watching.until(lambda: watching.names() == {"a"})
        watching.double.events.put_nowait({"type": "ERROR", "object": {"code": 410, "message": "too old"}})
        await watching.until(lambda: watching.names() == {"b"})
        assert watching.double.watches() == ["10", "50"][: len(watching.double.watches())]

    run(having(listing("10", "a"), listing("50", "b")), script)


def test_what_was_known_stays_while_the_server_refuses() -> None:
    async def script(watching: Watching) -> None:
        await watching.until(lambda: watching.names() == {"a"})
        watching.double.answers[PATH] = deque([503])
        watching.double.watch_status = 503
        watching.double.events.put_nowait(None)
        await watching.until(lambda: "503" in watching.watch.problem)
        assert watching.names() == {"a"}
        assert watching.watch.listed
        watching.double.answers[PATH] = deque([listing("60", "z")])
        watching.double.watch_status = 200
        await watching.until(lambda: watching.watch.problem == "" and watching.names() == {"z"})

    run(having(listing("10", "a")), script)


def test_a_server_that_refuses_from_the_start_is_a_problem() -> None:
    async def script(watching: Watching) -> None:
        await watching.until(lambda: "403" in watching.watch.problem)
        assert not watching.watch.listed

    run(having(403), script)


def test_a_resource_that_the_cluster_does_not_have_is_looked_for_again() -> None:
    """Without KubeVirt there are no instances, which is no problem; it may come later."""

    async def script(watching: Watching) -> None:
        await watching.until(lambda: watching.watch.listed)
        assert watching.watch.problem == ""
        watching.double.answers[POOLS.paths[1]] = deque([listing("5", "pool")])
        await watching.until(lambda: watching.names(Resource.POOLS) == {"pool"})
        await watching.until(lambda: {path for path, query in watching.double.requests if "watch" in query} == {POOLS.paths[1]})

    run(Double, script, POOLS)


def test_nonsense_lists_again() -> None:
    async def script(watching: Watching) -> None:
        await watching.until(lambda: watching.names() == {"a"})
        watching.double.events.put_nowait({"type": "NONSENSE"})
        await watching.until(lambda: watching.names() == {"b"})

    run(having(listing("10", "a"), listing("50", "b")), script)


def test_a_resource_must_be_missing_twice_before_its_objects_are_gone() -> None:
    """An API server that starts answers 404 for a moment, and a removed definition does for good."""

    async def script(watching: Watching) -> None:
        await watching.until(lambda: watching.names() == {"a"})
        watching.double.watch_status = 404
        watching.double.answers[PATH] = deque([listing("20", "a", "b")])
        watching.double.events.put_nowait(None)
        await watching.until(lambda: watching.names() == {"a", "b"})
        watching.double.answers[PATH] = deque([404])
        await watching.until(lambda: watching.names() == set())
        assert watching.watch.problem == ""

    run(having(listing("10", "a")), script)
