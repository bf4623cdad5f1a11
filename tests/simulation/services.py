"""The programs of the stream as processes of the simulated world: each is the code of its service, from the threads down to the clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.loop import Loop
from tests.simulation.storage import MemoryStore
from tests.simulation.stream import app_maker
from virtflow.exporter.assignment import Clients
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.consumer import Feed
from virtflow.exporter.service import Exporter
from virtflow.exporter.web import Pages
from virtflow.history.service import Service as HistoryService
from virtflow.history.writer.source import Makers as HistoryMakers
from virtflow.processors.service import Makers as ProcessorsMakers
from virtflow.processors.service import Service as ProcessorsService
from virtflow.producer import service as producer_service
from virtflow.producer.publishing.events import EventPublisher, WithEvents
from virtflow.producer.publishing.snapshots import Publisher
from virtflow.producer.source import Round
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime.kafka.acls import EXPORTER_GROUP
from virtflow.runtime.kafka.clients import client_settings, consumer_settings
from virtflow.runtime.lifecycle import Stop, in_loop, stop_event
from virtflow.runtime.settings import Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.jobs import Kind
from virtflow.schemas.records import VmSnapshot

if TYPE_CHECKING:
    from tests.simulation.world import World

SCRAPED: Final = frozenset(
    {"vm_cpu_seconds_total", "vm_block_read_bytes_total", "vm_state", "vm_info", "vm_migration_active", "virtflow_node_up"}
)
"""The metrics that are scraped: a counter of the VM, one of a device, what changes and what does not."""
SCRAPE_SECONDS: Final = 5.0
INVENTORY_SECONDS: Final = 20.0


class Host:
    """A producer's source of rounds: what libvirt on a node says."""

    def __init__(self, world: World, node: str, offer: Callable[[HypervisorEvent], None], stop: Stop) -> None:
        """Events go to ``offer``, on the sampling thread."""
        self._world = world
        self._node = node
        self._offer = offer
        self._stop = stop
        self._told = world.kernel.now
        self._inventory = float("-inf")
        self._find_migrations()

    def round(self) -> Round:
        """The VMs of this moment."""
        self._tell()
        now, due = self._world.kernel.now, {}
        readings = self._world.fleet.readings(self._node, now, self._world.wall())
        if now - self._inventory >= INVENTORY_SECONDS:
            self._inventory = now
            due = {reading.uuid: self._world.fleet.vm(reading.uuid).inventory() for reading in readings}
        return Round(self._world.wall(), up=True, readings=readings, inventories=due)

    def wait(self, until: float) -> None:
        """Lets time pass, and tells what is announced meanwhile."""
        then = min(until, self._world.fleet.next_event(self._node, self._told))
        self._world.kernel.wait(self._stop.is_set, then)
        self._tell()

    def learn(self, vms: Sequence[VmSnapshot]) -> None:
        """Nothing changes that is in the XML."""

    def interrupt(self) -> None:
        """The waiting sees the stop by itself."""

    def close(self, seconds: float) -> bool:
        """Nothing is open."""
        del seconds
        return True

    def _tell(self) -> None:
        now = self._world.kernel.now
        for event in self._world.fleet.happened(self._node, self._told, now, self._clock()):
            self._say(event)
        self._told = now

    def _find_migrations(self) -> None:
        """What a producer that starts finds of VMs that move: their states."""
        now = self._world.kernel.now
        for vm in self._world.fleet.vms:
            reading = vm.reading(self._node, now)
            if reading is not None and any(move.begins <= now < move.ends + 1 for move in vm.moves):
                detail = (reading.data["state.state"], reading.data["state.reason"], "")
                self._say(HypervisorEvent(vm.uuid, vm.name, Kind.STATE, detail, self._world.wall()))

    def _say(self, event: HypervisorEvent) -> None:
        self._offer(event)

    def _clock(self) -> float:
        return self._world.wall() - self._world.kernel.now


def producer(world: World, node: str, settings: Settings, stop: Stop) -> None:
    """``virtflow producer``, as its service puts it together, on a simulated libvirt."""
    publisher = Publisher(settings, make=world.network.producer)
    events = EventPublisher(settings, node, make=world.network.producer)
    world.watch.producer_starts(world.kernel.process, publisher, events)
    source = Host(world, node, events.offer, stop)
    world.watch.offers(publisher)
    try:
        producer_service.rounds(settings, source, stop, WithEvents(publisher, events))
    finally:
        publisher.close(producer_service.DRAIN_SECONDS / 2)
        events.close(producer_service.DRAIN_SECONDS / 2)
        world.watch.producer_ends(world.kernel.process)


def processors(world: World, settings: Settings, stop: Stop) -> None:
    """``virtflow processors``, without its pages."""
    loop = Loop(world.kernel)

    async def main() -> None:
        streams = app_maker(world.network, partial(world.watch.stream_starts, world.kernel.process))
        make = ProcessorsMakers(world.network.producer, world.network.consumer, world.network.admin, streams)
        service = ProcessorsService(settings, stop, make)
        world.watch.processors_start(world.kernel.process, service)
        running = asyncio.get_running_loop()
        stop.subscribe(lambda: in_loop(running, service._stopped.set))
        if await service._there(service._problem):
            await service._process()

    loop.run(main())


def history(world: World, settings: Settings, stop: Stop) -> None:
    """``virtflow history write``, without its pages."""
    service = HistoryService(settings, stop, HistoryMakers(world.network.consumer, world.network.admin))
    service._store = MemoryStore(world.tables, world.weather)  # type: ignore[assignment]
    world.watch.history_starts(world.kernel.process, service)
    service._work()


def exporter(world: World, settings: Settings, stop: Stop) -> None:
    """``virtflow exporter``, and Prometheus, which scrapes it."""
    loop = Loop(world.kernel)
    clocks = Clocks(lambda: world.kernel.now, world.wall)

    async def main() -> None:
        service = Exporter(settings, clocks)
        clients = Clients(
            consumer_settings(settings, EXPORTER_GROUP), client_settings(settings), world.network.consumer, world.network.admin
        )
        feed = Feed(settings, service.fleet, Codec(), service.metrics, clocks, clients=clients)
        pages = Pages(service.fleet, SCRAPED, service.metrics, clocks, feed.missing)
        world.watch.exporter_starts(world.kernel.process, service, feed)
        stopped = stop_event(stop)
        tasks = [asyncio.create_task(feed.run()), asyncio.create_task(_scrape(world, pages, service, feed))]
        await asyncio.wait([asyncio.create_task(stopped.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    loop.run(main())


async def _scrape(world: World, pages: Pages, service: Exporter, feed: Feed) -> None:
    while True:
        await asyncio.sleep(SCRAPE_SECONDS)
        answer = await pages._renderings.answer(SCRAPED, gzip=False)
        try:
            world.watch.scraped(world.kernel.process, b"".join(answer).decode(), service.fleet, feed.missing())
        finally:
            pages._renderings.release(answer)


Main = Callable[[Stop], Any]


def mains(world: World, settings: dict[str, Settings]) -> dict[str, Main]:
    """The main function of every program, by its name; ``settings`` by the same names."""
    kinds: dict[str, Callable[..., Any]] = {"processors": processors, "history": history, "exporter": exporter}
    found: dict[str, Main] = {}
    for name, own in settings.items():
        kind, _, which = name.partition("-")
        found[name] = partial(producer, world, which, own) if kind == "producer" else partial(kinds[kind], world, own)
    return found
