"""What is seen of the programs while they run: nothing here changes what they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.machine import Machine, here
from tests.support.virtual_time.kernel import Process
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.jobs import Kind
from virtflow.schemas.order import Position
from virtflow.schemas.records import NodeSnapshot, VmEvent, VmMetrics
from virtflow.schemas.states import RUNNING

if TYPE_CHECKING:
    from tests.simulation.world import World

CODEC: Final = Codec()
Event = tuple[str, str, int]
"""Node, run and sequence."""
Round = tuple[str, str, int]


@dataclass(slots=True)
class ProducerLife:
    """One run of a producer: what it was given, and what was left at its end."""

    process: Process
    publisher: Any
    events: Any
    boot: str = ""
    """The run's name in its rounds, once there is one."""
    rounds: set[int] = field(default_factory=set)
    left_rounds: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    clean: bool = False
    """Whether it ended by itself, and had closed everything."""
    unjournaled: set[Event] = field(default_factory=set)


@dataclass(slots=True)
class Exported:
    """What an exporter said last of a VM: the sample's place, its life, and its counters."""

    node: str
    position: Position
    life: int
    values: dict[str, float]


@dataclass(slots=True)
class Scrapes:
    """What one run of an exporter has said."""

    last: dict[str, Exported] = field(default_factory=dict)
    ready: bool = False
    count: int = 0


class Watch:
    """Everything that was seen."""

    def __init__(self, world: World) -> None:
        """Nothing yet."""
        self._world = world
        self.problems: list[str] = []
        self.producers: list[ProducerLife] = []
        self._life: dict[int, ProducerLife] = {}
        self.taken_at: dict[Round, float] = {}
        """When each round was taken, by the kernel's time."""
        self.events: dict[Event, str] = {}
        """The events that producers were given, and their kinds."""
        self.journaled: dict[Event, Machine] = {}
        self.excused: set[Event] = set()
        """Events that a disk lost before they were brought to it."""
        self._messages: dict[Event, bytes] = {}
        self.services: dict[str, list[Any]] = {"processors": [], "history": []}
        self.processes: list[tuple[Process, Any]] = []
        """Each process with its service."""
        self.streams: list[tuple[Process, Any]] = []
        """What reads the processors' topics, of each process."""
        self.exporters: dict[int, Any] = {}
        self.scrapes: dict[int, Scrapes] = {}
        self._decoded: dict[bytes, Any] = {}

    def decoded(self, message: bytes, record: type[Any]) -> Any:  # noqa: ANN401, a record
        """What a message says; raises ``UndecodableError``."""
        found = self._decoded.get(message)
        if found is None:
            found = self._decoded[message] = CODEC.decode(message, record)
        return found

    def problem(self, words: str) -> None:
        """An invariant does not hold."""
        text = f"{self._world.kernel.now - 1000:.3f} s: {words}"
        if len(self.problems) < 20:
            self.problems.append(text)

    # -- producers

    def producer_starts(self, process: Process, publisher: Any, events: Any) -> None:  # noqa: ANN401, the doubles' place
        """A producer has made its publishers."""
        life = ProducerLife(process, publisher, events)
        self.producers.append(life)
        self._life[id(process)] = life
        process.on_death.append(lambda: self._ended(life))
        offer: Callable[[Any], None] = events.offer

        def offered(happened: Any) -> None:  # noqa: ANN401, a HypervisorEvent
            identity = (events._node, events._boot_id, events._sequence)
            self.events[identity] = happened.what
            if happened.what != Kind.JOB:
                life.unjournaled.add(identity)
            offer(happened)

        events.offer = offered

    def offers(self, publisher: Any) -> None:  # noqa: ANN401, as above
        """Sees the rounds that a publisher is given."""
        offer: Callable[[NodeSnapshot], None] = publisher.offer
        life = self.producers[-1]

        def offered(snapshot: NodeSnapshot) -> None:
            life.boot = snapshot.boot_id
            life.rounds.add(snapshot.sequence)
            self.taken_at[snapshot.node, snapshot.boot_id, snapshot.sequence] = self._world.kernel.now
            offer(snapshot)

        publisher.offer = offered

    def producer_ends(self, process: Process) -> None:
        """A producer has closed everything."""
        self._life[id(process)].clean = True

    def journal_has(self, message: bytes) -> None:
        """An event was written to a journal."""
        event = self.decoded(message, VmEvent)
        identity = event.node, event.boot_id, event.sequence
        process = self._world.kernel.process
        self.journaled[identity] = here(self._world.kernel)
        self._messages[identity] = message
        if (life := self._life.get(id(process))) is not None:
            life.unjournaled.discard(identity)

    def power_cut(self, host: Machine) -> None:
        """What is on no disk may be gone."""
        durable = [node.durable for node in host.disk.nodes.values() if node.durable]
        for identity, where in self.journaled.items():
            if where is host and not any(self._messages[identity] in one for one in durable):
                self.excused.add(identity)

    def waiting_in_journals(self) -> set[Event]:
        """Events that are on some disk."""
        disks = [bytes(node.data) for host in self._world.hosts.values() for node in host.disk.nodes.values()]
        return {identity for identity, message in self._messages.items() if any(message in data for data in disks)}

    def _ended(self, life: ProducerLife) -> None:
        publisher, events = life.publisher, life.events
        life.left_rounds = len(publisher._ring) + (publisher._current is not None)
        life.drops = Counter(publisher._drops)
        life.drops += Counter(events._drops)
        life.drops += Counter(events._journal.problems)
        if len(publisher._ring) > publisher._size:
            self.problem(f"{life.process.name} holds {len(publisher._ring)} rounds")

    # -- the services

    def processors_start(self, process: Process, service: Any) -> None:  # noqa: ANN401, as above
        """A run of the processors."""
        self.processes.append((process, service))
        self.services["processors"].append(service)

    def stream_starts(self, process: Process, app: Any) -> None:  # noqa: ANN401, an App
        """A run of the processors reads its topics."""
        self.streams.append((process, app))

    def history_starts(self, process: Process, service: Any) -> None:  # noqa: ANN401, as above
        """A run of the history's writer."""
        self.processes.append((process, service))
        self.services["history"].append(service)

    def exporter_starts(self, process: Process, service: Any, feed: Any) -> None:  # noqa: ANN401, as above
        """A run of an exporter."""
        self.exporters[id(process)] = (process, service, feed)
        self.scrapes[id(process)] = Scrapes()

    def counted(self, service: str, name: str, **labels: str) -> float:
        """What all runs of a service have counted under a name and some labels."""
        whole = 0.0
        for run in self.services[service]:
            metrics = run._metrics
            families = metrics._counters[name].collect() if name in metrics._counters else metrics._gauges[name].collect()
            whole += sum(
                sample.value
                for family in families
                for sample in family.samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )
        return whole

    def scraped(self, process: Process, text: str, fleet: Any, missing: str) -> None:  # noqa: ANN401, a Fleet
        """An exporter's answer: each series once, each VM of one node, and no counter below what it was."""
        seen = self.scrapes[id(process)]
        seen.count += 1
        seen.ready = not missing
        nodes: dict[str, set[str]] = {}
        series: Counter[str] = Counter()
        values: dict[str, dict[str, float]] = {}
        for line in text.splitlines():
            if line.startswith("#") or "uuid=" not in line:
                continue
            name, _, value = line.rpartition(" ")
            metric, _, labels = name.partition("{")
            uuid, node = _label(labels, "uuid"), _label(labels, "node")
            if node:
                nodes.setdefault(uuid, set()).add(node)
            key = f"{metric} {uuid} {_label(labels, 'device')}"
            series[key] += 1
            if metric.endswith("_total"):
                values.setdefault(uuid, {})[key] = float(value)
        for key, count in series.items():
            if count > 1:
                self.problem(f"{process.name}: {count} series of {key}")
        for uuid, of_vm in nodes.items():
            if len(of_vm) > 1:
                self.problem(f"{process.name}: {uuid} is of {sorted(of_vm)}")
        for vm in fleet.vms():
            self._compare(process, seen, vm.exported, values.get(vm.exported.uuid, {}))
            self._true(process, vm)

    def _compare(self, process: Process, seen: Scrapes, record: VmMetrics, values: dict[str, float]) -> None:
        taken = self.taken_at.get((record.node, record.boot_id, record.sequence))
        if taken is None:
            self.problem(f"{process.name}: a sample that nobody took: {record.node} {record.boot_id} {record.sequence}")
            return
        life = self._world.fleet.vm(record.uuid).life(taken)
        number = life.number if life.node == record.node else life.number + 1  # listed at its destination before it runs there
        new = Exported(record.node, Position(record.boot_id, record.sequence, record.part), number, values)
        old = seen.last.get(record.uuid)
        seen.last[record.uuid] = new
        if old is None or self._world.clocks_jumped:
            return
        fallen = [key for key, value in values.items() if value < old.values.get(key, 0.0)]
        if fallen and number <= old.life:
            self.problem(
                f"{process.name}: {fallen[0]} fell from {old.values[fallen[0]]} to {values[fallen[0]]} in life {number} after {old.life}"
            )

    def _true(self, process: Process, vm: Any) -> None:  # noqa: ANN401, a Vm of the exporter
        """Of two samples that were taken where the VM ran, the one of its later life is exported."""
        if self._world.clocks_jumped or not self._runs(vm.exported):
            return
        others = [sample.record for sample in vm.samples.values() if sample.record is not None and self._runs(sample.record)]
        newest = max(others, key=self._taken)
        if self._life_of(newest) > self._life_of(vm.exported):
            self.problem(
                f"{process.name}: {vm.exported.uuid} is exported of {vm.exported.node}, and has a sample of {newest.node}, where it runs now"
            )

    def _life_of(self, record: VmMetrics) -> int:
        return self._world.fleet.vm(record.uuid).life(self._taken(record)).number

    def _taken(self, record: VmMetrics) -> float:
        return self.taken_at.get((record.node, record.boot_id, record.sequence), 0.0)

    def _runs(self, record: VmMetrics) -> bool:
        """Whether a sample was taken where the VM ran then."""
        return record.state == RUNNING and self._world.fleet.vm(record.uuid).life(self._taken(record)).node == record.node


def _label(labels: str, name: str) -> str:
    _, found, rest = labels.partition(f'{name}="')
    return rest.partition('"')[0] if found else ""
