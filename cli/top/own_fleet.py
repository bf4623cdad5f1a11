"""A fleet that `virtflow top` reads itself, from Kafka as the exporter or from libvirt as `virtflow node`: in this process, without a port."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from msgspec.structs import replace

from virtflow.cli.checks import probes
from virtflow.cli.checks.findings import require
from virtflow.cli.parts import part
from virtflow.cli.services import kafka_errors_told
from virtflow.cli.top.client import TIMEOUT_SECONDS, Answers
from virtflow.runtime.lifecycle import Stop, collect_seldom
from virtflow.runtime.secrets import plain_url
from virtflow.runtime.settings import Exporter as Section
from virtflow.runtime.settings import Guest, Settings
from virtflow.schemas.errors import EnvironmentProblemError, InputError

if TYPE_CHECKING:
    from virtflow.exporter.api.questions import Questions
    from virtflow.exporter.service import Exporter, Source

T = TypeVar("T")
CLOSE_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 15.0
"""How long the fleet may stay unknown for one reason before `--once` gives up."""
LOOK_SECONDS: Final = 0.1
RATES_SECONDS: Final = 60.0
"""Longer than rates are waited for."""

Reading = Callable[[Settings, Any, Stop], AbstractContextManager[Any]]
"""Feeds an exporter until it is left: gives the source that the exporter is to run, None where it needs none."""


class OwnFleet:
    """Reads it in a thread from ``start`` to ``close``, and answers as the client of an exporter does."""

    def __init__(self, settings: Settings, reading: Reading, place: str, fix: str) -> None:
        """``place`` is where it is read from, in words, and ``fix`` what to do where that brings nothing.

        Raises ``SettingError`` for settings that can't be used.
        """
        self.url = place
        self._fix = fix
        own = settings.exporter
        section = Section(read_back_seconds=own.read_back_seconds, forget_node_seconds=own.forget_node_seconds)
        # A look at VMs: it asks no guest's agent, which would write to libvirt.
        self._settings = replace(settings, exporter=section, guest=Guest())
        self._exporter: Exporter = part("virtflow.exporter.service", "exporter").Exporter(self._settings)
        self._reading = reading
        self._stop = Stop()
        self._ready: Future[tuple[asyncio.AbstractEventLoop, Questions]] = Future()
        self._ended: Future[None] = Future()

    def start(self) -> Self:
        """Begins to read; raises what keeps it from that."""
        # Nothing but the screen may write to the terminal. What is wrong is in the answers.
        logging.getLogger("virtflow").addHandler(logging.NullHandler())
        logging.getLogger("virtflow").propagate = False
        thread = ThreadPoolExecutor(1, thread_name_prefix="fleet")
        self._ended = thread.submit(self._run)
        either: tuple[Future[Any], ...] = (self._ready, self._ended)
        wait(either, return_when=FIRST_COMPLETED)
        if not self._ready.done():
            self._ended.result()
        return self

    def close(self) -> bool:
        """Ends the reading; False where a call to a broker or to libvirt has not returned yet."""
        self._stop.set()
        wait((self._ended,), CLOSE_SECONDS)
        return self._ended.done()

    def all(self, paths: Mapping[str, str]) -> Answers:
        """The answers to several paths of the API, by their names."""

        async def ask(questions: Questions) -> Answers:
            return {name: await questions.answer(path) for name, path in paths.items()}

        return self._answered(ask, TIMEOUT_SECONDS)

    def settle(self) -> None:
        """Waits until all VMs are known, and their rates. Raises ``EnvironmentProblemError`` where they stay unknown."""
        _, questions = self._asked()
        reason, since = questions.missing(), time.monotonic()
        while reason:
            if time.monotonic() - since > PATIENCE_SECONDS:
                raise self._problem(reason)
            time.sleep(LOOK_SECONDS)
            _, questions = self._asked()
            if (newer := questions.missing()) != reason:
                reason, since = newer, time.monotonic()
        self._answered(lambda asked: asked.rates(), RATES_SECONDS)

    def _answered(self, ask: Callable[[Questions], Coroutine[Any, Any, T]], seconds: float) -> T:
        """The result of a coroutine in the fleet's event loop."""
        loop, questions = self._asked()
        asking = ask(questions)
        try:
            future = asyncio.run_coroutine_threadsafe(asking, loop)
        except RuntimeError as error:  # the loop has ended a moment ago
            asking.close()
            raise self._problem("no answer") from error
        try:
            return future.result(seconds)
        except (TimeoutError, CancelledError) as error:
            future.cancel()
            if self._ended.done():  # a loop that ended meanwhile may never have begun it
                asking.close()
            raise self._problem("no answer") from error

    def _asked(self) -> tuple[asyncio.AbstractEventLoop, Questions]:
        """The fleet's event loop, and what answers in it. Raises ``InputError`` where reading has ended."""
        if self._ended.done():
            error = self._ended.exception()
            raise error if isinstance(error, InputError) else InputError(f"{self.url}: reading has ended: {error!r}")
        return self._ready.result()

    def _problem(self, why: str) -> EnvironmentProblemError:
        return EnvironmentProblemError(thing="fleet", value=self.url, why=why, fix=self._fix)

    def _run(self) -> None:
        with self._reading(self._settings, self._exporter, self._stop) as source:
            asyncio.run(self._read(source))

    async def _read(self, source: Source | None) -> None:
        loop = asyncio.get_running_loop()
        await self._exporter.asked(self._stop, source, lambda questions: self._ready.set_result((loop, questions)))


def fleet_of_kafka(settings: Settings) -> OwnFleet:
    """The fleet of the topics, as an exporter reads them: with its rights. Raises ``EnvironmentProblemError`` where it could not."""
    require(probes.broker_and_topics(settings, ("exporter",)))
    collect_seldom()
    place = f"Kafka {settings.kafka.bootstrap_servers}"
    return OwnFleet(settings, _from_topics, place, "`virtflow check --for exporter` says more").start()


def fleet_of_libvirt(settings: Settings) -> OwnFleet:
    """This host's VMs, as `virtflow node` samples them. Raises ``EnvironmentProblemError`` where libvirt does not answer."""
    require(probes.libvirt(settings))
    part("virtflow.producer.sampler", "producer")
    uri = ", ".join(settings.libvirt.discover) or plain_url(settings.libvirt.uri)
    return OwnFleet(settings, _from_libvirt, f"libvirt {uri}", "`virtflow check --for node` says more").start()


@contextmanager
def _from_topics(settings: Settings, exporter: Exporter, stop: Stop) -> Iterator[Source]:
    del stop
    with kafka_errors_told(settings, "exporter"), part("virtflow.exporter.service", "exporter").from_topics(settings, exporter) as source:
        yield source


@contextmanager
def _from_libvirt(settings: Settings, exporter: Exporter, stop: Stop) -> Generator[None]:
    sampling = part("virtflow.node.service", "producer").Sampling(settings, exporter, stop)
    sampling.start("")
    try:
        yield
    finally:
        stop.set()
        sampling.end()
    if sampling.failure is not None:
        raise sampling.failure
