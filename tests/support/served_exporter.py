"""An exporter without a bus, served in a thread of the test's own process, and what it answers."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from aiohttp import ClientSession

from virtflow.exporter.service import Exporter
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.settings import Exporter as Section
from virtflow.runtime.settings import Settings

SECONDS: Final = 20.0


def settings_of(**fields: object) -> Settings:
    """Settings of an exporter on a port of its own."""
    return Settings(exporter=Section(listen="127.0.0.1:0", **fields))  # type: ignore[arg-type]


def exporter_of(**fields: object) -> Exporter:
    """An exporter with these settings of its section."""
    return Exporter(settings_of(**fields))


@contextmanager
def served(exporter: Exporter, stop: Stop | None = None) -> Iterator[str]:
    """Serves it; the URL. Ends with the thread ended, by ``stop`` where the test has one of its own."""
    stop, bound = stop or Stop(), queue.Queue[str]()
    thread = threading.Thread(target=exporter.serve, args=(stop, None, bound.put))
    thread.start()
    try:
        yield f"http://{bound.get(timeout=SECONDS)}"
    finally:
        stop.set()
        thread.join(SECONDS)
        assert not thread.is_alive()


def get(url: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body as they came over the wire."""

    async def ask() -> tuple[int, Mapping[str, str], bytes]:
        client = ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"} | headers)
        async with client, client.get(url) as answer:
            return answer.status, answer.headers, await answer.read()

    return asyncio.run(ask())
