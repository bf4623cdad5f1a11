"""Prometheus as the source: which VMs there are is asked again and again, and values when somebody wants them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from virtflow.adapter.answers import Answers, Moment, Rules
from virtflow.adapter.objects import Objects
from virtflow.adapter.prometheus.client import PrometheusClient, PrometheusError, Series
from virtflow.adapter.prometheus.scrapes import ALWAYS, INFO, Clock, samples_of
from virtflow.adapter.prometheus.view import Directory, ScrapedFleet
from virtflow.adapter.requests import Query, Reason, RefusedError
from virtflow.adapter.samples.window import INTERVALS_LEAST, Sample
from virtflow.exporter.clocks import Clocks
from virtflow.runtime.settings import Adapter
from virtflow.schemas.catalogue.scaling import ScalingMetric

LOGGER: Final = logging.getLogger("virtflow.adapter.prometheus")

LOOK_SECONDS: Final = 5.0
"""How often it is asked which VMs there are."""
UUIDS: Final = 500
"""VMs in one query."""
SCRAPE_SECONDS: Final = 60.0
"""What a window is longer than that of its samples: the newest scrape may be so old."""
UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Whatever else a series names is not put into a query."""
INTERVAL: Final = "virtflow_node_interval_seconds"
UP: Final = "virtflow_node_up"


class PrometheusSource:
    """A source of the adapter, and the maker of its answers. Belongs to the event loop."""

    def __init__(self, settings: Adapter, objects: Objects, rules: Rules, clocks: Clocks) -> None:
        """Raises ``EnvironmentProblemError`` where the CA certificates can't be read."""
        self._client = PrometheusClient(settings)
        self._window = settings.window_seconds
        self._objects = objects
        self._rules = rules
        self._clocks = clocks
        self._directory = Directory(settings.namespace_field)
        self._ahead = 0.0
        """Prometheus' Unix seconds less our monotonic ones."""
        self._problem = "Prometheus was not asked yet"
        self._known = False

    def missing(self) -> str:
        """Why the fleet is not known, "" once it was."""
        return "" if self._known else self._problem

    def vms(self) -> int:
        """How many VMs are shown."""
        return len(self._directory.labels)

    async def run(self) -> None:
        """Asks which VMs there are until it is cancelled."""
        async with self._client:
            while True:
                try:
                    await self._look()
                except PrometheusError as error:
                    if not self._problem or not self._known:
                        LOGGER.warning("%s; trying again", error)
                    self._problem = str(error)
                await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        asked = self._clocks.now()
        moments = await self._client.query("vector(time())")
        if not moments:
            raise PrometheusError("Prometheus does not say what time it is")
        self._ahead = _number(moments[0]) - (asked + self._clocks.now()) / 2
        infos, intervals, up = [await self._client.query(name) for name in (INFO, INTERVAL, UP)]
        silent = frozenset(one.metric.get("node", "") for one in up if not _number(one))
        self._directory.replace(infos, {one.metric.get("node", ""): _number(one) for one in intervals}, silent)
        if self._problem:
            LOGGER.info("Prometheus answers")
        self._known, self._problem = True, ""

    async def answers(self, query: Query) -> Answers:
        """Who answers this query, with the samples that it needs; raises ``RefusedError`` where Prometheus does not answer."""
        uuids = self._needed(query)
        clock = Clock(self._clocks.now(), self._clocks.now() + self._ahead)
        samples: dict[str, Sequence[Sample]] = {}
        try:
            for some in _chunks([uuid for uuid in uuids if UUID.fullmatch(uuid)]):
                found = await self._client.query(self._promql(query.metric, some), clock.server)
                samples |= samples_of(found, self._directory.intervals, clock, self._window)
        except PrometheusError as error:
            raise RefusedError(Reason.UNAVAILABLE, str(error)) from error
        return Answers(ScrapedFleet(self._directory, samples), self._objects, self._rules)

    def _needed(self, query: Query) -> list[str]:
        """The VMs whose samples the answer looks at: an answer without any tells."""
        view = ScrapedFleet(self._directory, {})
        with contextlib.suppress(RefusedError):
            Answers(view, self._objects, self._rules).answer(query, Moment(self._clocks.now(), self._clocks.wall()))
        return [uuid for uuid in view.asked if uuid]

    def _promql(self, metric: ScalingMetric, uuids: Iterable[str]) -> str:
        """The points of all rows of a metric, as they were scraped."""
        names = sorted({row.name for row in (*metric.add, *metric.subtract, *metric.per)} | set(ALWAYS))
        longest = max(self._directory.intervals.values(), default=0.0)
        seconds = max(self._window, INTERVALS_LEAST * longest) + SCRAPE_SECONDS
        return f'{{__name__=~"{"|".join(names)}",uuid=~"{"|".join(uuids)}"}}[{round(1000 * seconds)}ms]'


def _chunks(uuids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(uuids), UUIDS):
        yield uuids[start : start + UUIDS]


def _number(one: Series) -> float:
    """The value of an instant query's series."""
    assert one.value is not None
    return float(one.value[1])
