"""Fault 20: a thousand wrong passwords a second. Scrapes are unaffected, and nothing tells which users there are."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import bcrypt
import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from tests.support.broker import Broker
from tests.support.exporter_process import ExporterProcess
from tests.support.long import length
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import sample
from virtflow.schemas.topics import METRICS

VMS = 100
SECONDS = length(4.0, 60.0)
RATE = 1_000
COST = 10
HANGING_SECONDS = 60.0
"""A guess is compared sooner, or never."""
ATTACKERS = 20
"""Connections over which the guesses are sent."""
ELSEWHERE = "127.0.0.2"
"""Another address of this host: a client that shares nothing with those that guess."""


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


RIGHT = basic("prometheus", "s3cret")


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExporterProcess]:
    """An exporter with two users."""
    folder = tmp_path_factory.mktemp("exporter")
    config = folder / "web.yml"
    hashes = {name: bcrypt.hashpw(b"s3cret", bcrypt.gensalt(COST)).decode() for name in ("prometheus", "late")}
    config.write_text("basic_auth_users:\n" + "".join(f"  {name}: {hashed}\n" for name, hashed in hashes.items()))
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        writer = TopicWriter(broker.address)
        writer.write(METRICS, *(sample(number, 1, interval=3_600.0) for number in range(VMS)))
        process = ExporterProcess(folder, broker.address, writer.prefix, {"WEB_CONFIG_FILE": config})
        process.headers = RIGHT
        with process as running:
            running.wait_until(lambda: running.value("virtflow_exporter_vms") == VMS, 30.0, "all VMs")
            yield running


class Guessing:
    """What the answers to the guesses were, by status; ``sent`` is how many were sent."""

    def __init__(self) -> None:
        """None yet."""
        self.statuses: Counter[int] = Counter()
        self.sent = itertools.count()


@asynccontextmanager
async def guesses(exporter: ExporterProcess, user: str) -> AsyncIterator[Guessing]:
    """So many guesses a second as long as the context lasts, each another password."""
    told = Guessing()
    began = time.monotonic()

    async def guess(client: ClientSession) -> None:
        while True:
            number = next(told.sent)
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            try:
                async with client.get(exporter.url + "/metrics", headers=basic(user, f"guess {number}")) as answer:
                    await answer.read()
                    told.statuses[answer.status] += 1
            except (ClientError, OSError):
                told.statuses[0] += 1

    async with ClientSession(connector=TCPConnector(limit=ATTACKERS), timeout=ClientTimeout(total=60)) as client:
        tasks = [asyncio.create_task(guess(client)) for _ in range(ATTACKERS)]
        try:
            yield told
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def asked(exporter: ExporterProcess, headers: dict[str, str], local: str = "127.0.0.1") -> int:
    """The status of a scrape by a new connection from an address of this host."""
    connector = TCPConnector(local_addr=(local, 0))
    async with (
        ClientSession(connector=connector, timeout=ClientTimeout(total=30)) as client,
        client.get(exporter.url + "/metrics", headers=headers) as answer,
    ):
        assert answer.status != 200 or len(await answer.read()) > VMS * 100
        return answer.status


@pytest.mark.parametrize("user", ["prometheus", "nobody"])
def test_scrapes_are_unaffected(exporter: ExporterProcess, user: str) -> None:
    """A client that is known scrapes from the attackers' own address; one that comes for the first time, from another, gets in as well."""

    async def scenario() -> None:
        async with guesses(exporter, user) as told:
            deadline = time.monotonic() + SECONDS
            scrapes = 0
            while time.monotonic() < deadline or (told.statuses[401] == 0 and time.monotonic() < deadline + HANGING_SECONDS):
                assert await asked(exporter, RIGHT) == 200
                scrapes += 1
                await asyncio.sleep(0.1)
            assert await asked(exporter, basic("late", "s3cret"), ELSEWHERE) == 200
            assert scrapes >= 5
            sent = next(told.sent)
        assert set(told.statuses) <= {401, 429}
        assert told.statuses[401] > 0
        assert told.statuses[429] > told.statuses[401], "most guesses are refused without a comparison"
        assert sent > RATE * SECONDS / 4, "the guesses came at a rate that deserves the name"

    asyncio.run(scenario())


def comparisons(exporter: ExporterProcess) -> float:
    return exporter.value("virtflow_web_password_comparisons_total") or 0.0


def test_unknown_users_cost_what_wrong_passwords_cost(exporter: ExporterProcess) -> None:
    """One comparison for each new guess, none for one that was made before, whoever the user is: counted, not timed."""

    async def settled() -> None:
        """A client's guesses are compared one after another: once one is answered, those before it are, too."""
        while await asked(exporter, basic("nobody", "the last one")) != 401:  # noqa: ASYNC110, another process sends no event
            await asyncio.sleep(0.05)

    async def spent(user: str, passwords: list[str]) -> float:
        before = comparisons(exporter)
        for password in passwords:
            assert await asked(exporter, basic(user, password)) == 401
        return comparisons(exporter) - before

    async def scenario() -> None:
        await settled()
        for user in ("prometheus", "nobody", ""):
            assert await spent(user, ["a", "b", "c", "a", "a"]) == 3

    asyncio.run(scenario())


def test_a_user_that_is_known_is_not_compared_again(exporter: ExporterProcess) -> None:
    async def scenario() -> None:
        before = comparisons(exporter)
        for _ in range(20):
            assert await asked(exporter, RIGHT) == 200
        assert comparisons(exporter) == before

    asyncio.run(scenario())
