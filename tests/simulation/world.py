"""One simulated world: hosts, the broker, the storage, the programs and the VMs, for about two minutes; everything follows from the seed.

First a minute in which faults begin, then they end; when all programs have caught up the producers are stopped, and when the rest has caught
up again the invariants are looked at.
"""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import pkgutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from random import Random
from types import ModuleType
from typing import Any, Final

from tests.simulation import faults as faults_module
from tests.simulation import standins
from tests.simulation.disk import Disk, Files
from tests.simulation.faults import ACTIVE_SECONDS, LONGEST_SECONDS, Fault
from tests.simulation.fleet import Fleet
from tests.simulation.invariants import caught_up, drained, judge
from tests.simulation.machine import BEGINS, EPOCH, Machine, machine_of
from tests.simulation.network import Network
from tests.simulation.services import Main, mains
from tests.simulation.storage import Tables
from tests.simulation.watch import Watch
from tests.support.virtual_time.kernel import CrashedError, Kernel, Process, Task
from tests.support.virtual_time.standins import Module, Replaced, replaced
from virtflow.history.storage.errors import StorageError
from virtflow.producer import service
from virtflow.producer.publishing import events as events_module
from virtflow.producer.publishing import journal as journal_module
from virtflow.producer.publishing.journal import Entry, Journal
from virtflow.runtime.lifecycle import STOP_SECONDS, Stop
from virtflow.runtime.settings import Exporter, History, Processors, Producer, Settings
from virtflow.schemas.errors import InputError
from virtflow.schemas.topics import TOPICS

CALM_SECONDS: Final = 90.0
"""Within which everything has caught up once faults are over, and again once producers have stopped."""
LOOKS_SECONDS: Final = 1.0
PARTITIONS: Final = 2
PAUSES: Final = 0.3
STORAGE_SECONDS: Final = 0.05
"""Share of what is asked of a healthy storage that takes time, and how much."""
QUICK: Final = (("virtflow.processors.delivery", "POLL_SECONDS", 1.0), ("virtflow.exporter.consumer", "READ_SECONDS", 1.0))
"""Waits that end as soon as there is something, and are only there to look whether it is time to stop: longer ones cost fewer turns."""
RESIDENT_BYTES: Final = 50 << 20
"""The memory that every producer takes."""
ROOMS: Final = (
    "virtflow.producer",
    "virtflow.processors",
    "virtflow.exporter",
    "virtflow.history",
    "virtflow.runtime",
    "tests.support.memory_kafka",
)
"""Where stand-ins are put in."""
LOADED: Final = (
    "virtflow.producer.publishing",
    "virtflow.producer.records",
    "virtflow.processors",
    "virtflow.processors.lineage",
    "virtflow.processors.migrations",
    "virtflow.exporter",
    "virtflow.exporter.render",
    "virtflow.history.maintenance",
    "virtflow.history.storage",
    "virtflow.history.writer",
    "virtflow.runtime",
)
"""The rooms whose modules the programs use."""
HISTORY_READS: Final = ("virtflow.history.writer.consumer", "READ_SECONDS", 0.5)


class Weather:
    """How the storage fares."""

    def __init__(self, kernel: Kernel, seed: int) -> None:
        """Well."""
        self._kernel = kernel
        self.chance = Random(f"storage {seed}")  # noqa: S311, reproducible on purpose
        self.away_until = self.slow_until = self.mute_until = 0.0
        self.slow_seconds = 0.0

    def clear(self) -> None:
        """All is well again."""
        self.away_until = self.slow_until = self.mute_until = 0.0

    def before(self) -> None:
        """A step; it may take long, or fail."""
        self._kernel.step()
        slow = self._kernel.now < self.slow_until
        if slow or self.chance.random() < PAUSES:
            self._kernel.sleep(self.chance.uniform(0, 2 * (self.slow_seconds if slow else STORAGE_SECONDS)))
        if self._kernel.now < self.away_until:
            raise StorageError("the storage is away")

    def after(self) -> None:
        """A step; the answer may be lost."""
        self._kernel.step()
        if self._kernel.now < self.mute_until and self.chance.random() < 0.5:
            raise StorageError("the storage's answer is lost")


@dataclass(slots=True)
class Outcome:
    """What came of a world."""

    seed: int
    faults: list[Fault]
    injected: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    switches: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    """How many things of each kind were looked at."""


class World:
    """One world, to be run once."""

    def __init__(self, seed: int, faults: list[Fault] | None = None) -> None:
        """The world of a seed; ``faults`` in the place of its own."""
        self.seed = seed
        dice = Random(f"world {seed}")  # noqa: S311, reproducible on purpose
        self._dice = dice
        self.kernel: Final = Kernel(seed, Machine("outside", disk=Disk(Random(0))), now=BEGINS, epoch=EPOCH)  # noqa: S311, as above
        nodes = tuple(f"node-{number}" for number in range(dice.choice((1, 2, 2, 3))))
        self.fleet: Final = Fleet(seed, nodes, dice.randint(2, 5), ACTIVE_SECONDS + LONGEST_SECONDS)
        self.settings: Final = _settings(dice, nodes)
        self.interval: Final = self.settings[f"producer-{nodes[0]}"].producer.interval_seconds
        self.hosts: Final = {name: Machine(name, disk=Disk(Random(f"disk {seed} {name}"))) for name in self.settings}  # noqa: S311, as above
        self.network: Final = Network(self.kernel, seed)
        self.tables: Final = Tables()
        self.tables.note = self.kernel.note
        self.weather: Final = Weather(self.kernel, seed)
        self.watch: Final = Watch(self)
        self.running: Final[dict[str, Process]] = {}
        self.clocks_jumped: Final[set[str]] = set()
        self.twins: Final[set[str]] = set()
        self.faults: Final = faults_module.plan(seed, tuple(self.settings)) if faults is None else faults
        self.injected: Final[Counter[str]] = Counter()
        self.kernel.on_error = self._defect
        self._chance = standins.Chance(seed)
        self._stops: dict[int, Stop] = {}
        self._mains: dict[str, Main] = {}
        self._restarting = True

    def dice(self) -> list[object]:
        """Where each source of chance stands."""
        disks = [machine.disk.chance for machine in self.hosts.values()]
        sources = [self.kernel.random, self._dice, self.network.chance, self.weather.chance, *disks]
        return [*(source.getstate() for source in sources), self._chance.state()]

    # -- for the programs

    def wall(self) -> float:
        """Unix seconds by the clock of the host that asks."""
        return self.truth_wall() + self.kernel.process.host.clock_error

    def truth_wall(self) -> float:
        """Unix seconds."""
        return EPOCH + self.kernel.now

    # -- for the faults

    def inject(self, fault: Fault) -> None:
        """Carry a fault out."""
        self.injected[fault.kind] += 1
        self.kernel.note("fault", fault.kind, fault.target)
        faults_module.KINDS[fault.kind](self, fault)

    def kill(self, process: Process | None) -> None:
        """SIGKILL."""
        if process is not None and process.alive:
            self.kernel.kill(process)

    def terminate(self, name: str) -> None:
        """SIGTERM, and SIGKILL where it is not gone in time."""
        process = self.running.get(name)
        if process is not None and process.alive and (stop := self._stops.get(id(process))) is not None:
            stop.set()
            self.kernel.after(STOP_SECONDS, partial(self.kill, process))

    def start_twin(self, name: str, seconds: float) -> None:
        """A second process of a name, for a while."""
        self.twins.add(name)
        process = self._start(name, twin=True)
        self.kernel.after(seconds, partial(self.kill, process))

    # -- the run

    def run(self) -> Outcome:
        """From the beginning to the end."""
        outcome = Outcome(self.seed, self.faults)
        places, loaded = self._places(), len(sys.modules)
        with replaced(places), _quiet(), self.kernel.watched():
            try:
                self._live()
                judge(self, outcome)
            finally:
                self._restarting = False
                self.kernel.close()
        late = [name for name in list(sys.modules)[loaded:] if name.startswith(ROOMS)]
        assert not late, f"loaded while the world ran, without stand-ins: {late}"
        outcome.problems = self.watch.problems
        outcome.injected = self.injected
        outcome.seconds, outcome.switches = self.kernel.now - BEGINS, self.kernel.switches
        return outcome

    def _live(self) -> None:
        for topic in TOPICS:
            self.network.create(topic.name, PARTITIONS, topic.config())
        self._mains.update(mains(self, self.settings))
        for name in self.settings:
            self.kernel.after(self._dice.uniform(0, 2), partial(self._begin, name))
        faults_module.arrange(self, self.faults)
        self.kernel.wait(None, BEGINS + ACTIVE_SECONDS + LONGEST_SECONDS + 1)
        self._heal()
        self._until(lambda: caught_up(self), "the programs do not catch up")
        if self.seed % 2 == 0:
            self._stop_without_broker()
        self._restarting = False
        for name in [name for name in self.running if name.startswith("producer-")]:
            self.terminate(name)
        self.kernel.wait(None, self.kernel.now + STOP_SECONDS / 2)
        self._until(lambda: drained(self), "what the producers left is not taken")

    def _stop_without_broker(self) -> None:
        """Producers are stopped while the broker is away, and started again: what they could not send is sent by the next run."""
        self.network.stop()
        self.fleet.last_words(self.kernel.now + 0.5)
        self.kernel.wait(None, self.kernel.now + 1)
        for name in [name for name in self.running if name.startswith("producer-")]:
            self.terminate(name)
        self.kernel.wait(None, self.kernel.now + STOP_SECONDS / 2)
        self.network.start()
        self.kernel.wait(None, self.kernel.now + STOP_SECONDS)

    def _until(self, true: Callable[[], str], what: str) -> None:
        deadline = self.kernel.now + CALM_SECONDS
        while (why := true()) and self.kernel.now < deadline:
            self.kernel.wait(None, self.kernel.now + LOOKS_SECONDS)
        if why:
            self.watch.problem(f"{what}: {why}")

    def _heal(self) -> None:
        """Whatever fault lasts is over."""
        self.weather.clear()
        self.network.duplicating = False
        self.network._refusals.clear()
        if not self.network.running:
            self.network.start()
        for host in self.hosts.values():
            host.delay_seconds, host.disk.full, host.disk.broken = 0.002, False, False
            if not host.connected:
                self.network.mend(host)

    def _begin(self, name: str) -> None:
        self._start(name)

    def _start(self, name: str, *, twin: bool = False) -> Process:
        process = Process(name, self.hosts[name])
        if not twin:
            self.running[name] = process
        process.on_death.append(partial(machine_of(process).disk.let_go, process))
        process.on_death.append(partial(self.network.died, process))
        if not twin:
            process.on_death.append(partial(self._again, name))
        self.kernel.spawn(process, name, partial(self._run, process, name))
        return process

    def _again(self, name: str) -> None:
        """As systemd does."""
        if self._restarting:
            self.kernel.after(self._dice.uniform(0.3, 4.0), partial(self._start_if, name))

    def _start_if(self, name: str) -> None:
        if self._restarting and not self.running[name].alive:
            self._start(name)

    def _run(self, process: Process, name: str) -> None:
        stop = Stop()
        self._stops[id(process)] = stop
        try:
            self._mains[name](stop)
        except CrashedError:
            raise
        except InputError:
            pass  # it says so, and is started again
        finally:
            self.kernel.kill(process)

    def _defect(self, task: Task, error: BaseException) -> None:
        where = "".join(traceback.format_exception(error)[-3:]).strip()
        self.watch.problem(f"{task.name} ends by a defect: {type(error).__name__}: {error}\n{where}")

    # -- what is put in whose place

    def _places(self) -> list[Replaced]:
        files = Files(self.kernel)
        modules = standins.modules_of(self.kernel, self._chance)
        places: list[Replaced] = [(module, name, modules[name]) for module, name in _wanted()]
        places += [
            (journal_module, "os", Module(os, urandom=self._chance.urandom, **files.names())),
            (journal_module, "fcntl", Module(fcntl, flock=files.flock)),
            (service, "own_resident_bytes", lambda: RESIDENT_BYTES),
            (events_module, "Path", files.path),
            (Journal, "append", self._watched(Journal.append)),
        ]
        places += [(sys.modules[name], attribute, value) for name, attribute, value in (*QUICK, HISTORY_READS)]
        return places

    def _watched(self, append: Callable[..., Entry | None]) -> Callable[..., Entry | None]:
        def watched(journal: Any, key: bytes, message: bytes) -> Entry | None:  # noqa: ANN401, a Journal
            entry = append(journal, key, message)
            if entry is not None:
                self.watch.journal_has(message)
            return entry

        return watched


@cache
def _wanted() -> tuple[tuple[ModuleType, str], ...]:
    """Where stand-ins go: modules under test, and their names for modules of Python.

    All modules are loaded now: one that a program loaded when it needs it would have no stand-ins.
    """
    for room in LOADED:
        package = importlib.import_module(room)
        for found in pkgutil.iter_modules(package.__path__, f"{room}."):
            if not found.ispkg:
                importlib.import_module(found.name)
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(ROOMS)]
    return tuple((module, name) for module in modules for name, real in standins.REAL.items() if getattr(module, name, None) is real)


def _settings(dice: Random, nodes: tuple[str, ...]) -> dict[str, Settings]:
    """The programs of a world, by their names, with the settings of each."""
    interval = dice.choice((1.0, 2.0, 2.0, 5.0))
    found: dict[str, Settings] = {}
    for node in nodes:
        sync: Any = dice.choice(("always", "second", "never"))
        own = Producer(
            node=node,
            interval_seconds=interval,
            journal_folder="/journal",
            journal_bytes=65_536,
            journal_sync=sync,
            ring_rounds=dice.choice((2, 10)),
        )
        found[f"producer-{node}"] = Settings(producer=own)
    in_flight = dice.choice((2, 8, 64))
    for number in range(dice.choice((1, 2))):
        name = f"processors-{number}"
        found[name] = Settings(processors=Processors(instance=name, in_flight=in_flight, migration_silence_seconds=20.0))
    for number in range(dice.choice((1, 1, 2))):
        found[f"exporter-{number}"] = Settings(exporter=Exporter(read_back_seconds=max(30.0, 4 * interval)))
    seconds = dice.choice((3.0, 5.0, 10.0))
    named = dice.random() < 0.5
    for number in range(dice.choice((1, 1, 2))):
        instance = f"history-{number}" if named else ""
        found[f"history-{number}"] = Settings(
            history=History(commit_seconds=seconds, maintain_seconds=0, raw_days=3_650, sync="never", instance=instance)
        )
    return found


class _quiet:  # noqa: N801, a context
    """No log: most of what is logged is meant to go wrong."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._level)
