"""Real processors on a real broker: topics of a test's own, the process, and what it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.support import criteria
from tests.support.broker import DIES_WITH_US, Broker, free_ports
from tests.support.pages import page
from tests.support.started import Started
from virtflow.runtime.configuration import load
from virtflow.runtime.kafka.topic_admin import TopicAdmin
from virtflow.runtime.settings import Settings
from virtflow.schemas.avro.codec import Codec, R
from virtflow.schemas.records import NodeHealth, NodeSnapshot, VmSnapshot
from virtflow.schemas.topics import SNAPSHOTS, Topic

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
COLLECTED = 1_795_476_243.0
CODEC = Codec()


class NeverCameError(AssertionError):
    """What a test waited for did not happen in time."""


def eventually(what: str, happened: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits until ``happened``; raises ``NeverCameError`` that names ``what``. For other processes' doings, which send no event."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise NeverCameError(f"{what} did not happen in {seconds:.0f} s")
        time.sleep(0.05)


def vm_uuid(number: int) -> str:
    """The uuid of a test's VM."""
    return f"00000000-0000-4000-8000-{number:012x}"


def snapshot(node: str, sequence: int, vms: int = 3, *, boot_id: str = "boot", part: int = 0) -> NodeSnapshot:
    """A round of a node whose VMs are told apart by the node's name; VM k has used ``sequence + k`` seconds of CPU."""
    base = sum(node.encode()) * 1000
    samples = [VmSnapshot(uuid=vm_uuid(base + k), name=f"{node}-{k}", cpu_time=(sequence + k) * 10**9) for k in range(vms)]
    health = NodeHealth(up=1, rounds_total=sequence + 1)
    return NodeSnapshot(
        node=node, boot_id=boot_id, sequence=sequence, part=part, collected=COLLECTED + sequence, interval=1.0, health=health, vms=samples
    )


@dataclass
class Bus:
    """A broker with topics of a test's own; ``settings`` are what a service needs to use them."""

    broker: Broker
    prefix: str = field(default_factory=lambda: f"t{uuid4().hex[:8]}.")
    partitions: int = 3

    def environment(self) -> dict[str, str]:
        """The settings as environment variables."""
        return {
            "VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": self.broker.address,
            "VIRTFLOW_TOPICS_PREFIX": self.prefix,
            "VIRTFLOW_TOPICS_PARTITIONS": str(self.partitions),
            "VIRTFLOW_PROCESSORS_GROUP": f"{self.prefix}processors",
        }

    @property
    def settings(self) -> Settings:
        """The same as settings."""
        return load(None, self.environment())

    def create_topics(self) -> None:
        """Makes all topics."""
        admin = TopicAdmin(self.settings)
        admin.create(admin.states(), dry_run=False)
        eventually("the topics", lambda: all(state.exists for state in admin.states()), 20.0)

    def produce(self, messages: Iterable[tuple[str, bytes]], topic: Topic = SNAPSHOTS, *, pause: float = 0.0) -> None:
        """Produces (key, value) pairs in order and returns when the broker has acknowledged every one of them."""
        failures: list[KafkaError] = []
        config = {
            "bootstrap.servers": self.broker.address,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 1,
            "message.max.bytes": 20_000_000,
            "log_level": 0,
        }
        producer = Producer(config)

        def report(error: KafkaError | None, message: Message) -> None:
            del message
            if error is not None:
                failures.append(error)

        for key, value in messages:
            producer.produce(self.prefix + topic.name, value, key, on_delivery=report)
            producer.poll(pause)
        assert producer.flush(60.0) == 0
        assert not failures

    def read(self, topic: Topic) -> list[Message]:
        """All messages that are in a topic now."""
        consumer = Consumer({"bootstrap.servers": self.broker.address, "group.id": "reader", "enable.auto.commit": False, "log_level": 0})
        name = self.prefix + topic.name
        found: list[Message] = []
        try:
            for number in range(self.partitions):
                place = TopicPartition(name, number, 0)
                low, high = _bounds(consumer, place)
                place.offset = low
                consumer.assign([place])
                read_to = low
                while read_to < high:
                    message = consumer.poll(20.0)
                    assert message is not None
                    assert message.error() is None
                    found.append(message)
                    read_to = int(message.offset() or 0) + 1
        finally:
            consumer.close()
        return found

    def records(self, topic: Topic, record: type[R], codec: Codec = CODEC) -> list[R]:
        """All records that are in a topic now, per partition in order."""
        return [codec.decode(message.value(), record) for message in self.read(topic)]

    def lag(self, topic: Topic = SNAPSHOTS) -> int:
        """How many messages of a topic the processors have not committed yet."""
        config = {"bootstrap.servers": self.broker.address, "group.id": f"{self.prefix}processors", "log_level": 0}
        consumer = Consumer(config)
        try:
            places = [TopicPartition(self.prefix + topic.name, number) for number in range(self.partitions)]
            committed = {place.partition: max(0, place.offset) for place in _committed(consumer, places)}
            ends = {place.partition: consumer.get_watermark_offsets(place, timeout=20.0)[1] for place in places}
            return sum(ends[number] - committed[number] for number in ends)
        finally:
            consumer.close()

    def wait_until_committed(self, seconds: float = 60.0, topic: Topic = SNAPSHOTS) -> None:
        """Waits until the processors have committed everything of a topic."""
        eventually("a lag of 0", lambda: self.lag(topic) == 0, seconds)


def _bounds(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """The first and the next offset of a partition; waits for its leader where the topic has just been made."""
    deadline = time.monotonic() + 20.0
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=20.0)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return low, high


def _committed(consumer: Consumer, places: list[TopicPartition]) -> list[TopicPartition]:
    """The committed offsets; none as long as a broker that has just started looks for its coordinator."""
    try:
        return consumer.committed(places, timeout=20.0)
    except KafkaException as error:
        if error.args[0].code() not in {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}:
            raise
        return places


class Processors(Started):
    """One ``virtflow processors``; ``with`` starts it and ends it whatever state it is in."""

    def __init__(
        self, bus: Bus, folder: Path, *, instance: str = "one", host: str = "127.0.0.1", inside: Sequence[str] = (), **settings: str
    ) -> None:
        """``settings`` are environment variables without their prefix, in lower case: ``processors_in_flight="2"``.

        ``inside`` is what starts it somewhere else, as ``nsenter`` does, and ``host`` the address of its pages there.
        """
        self._inside = inside
        self._bus = bus
        self._folder = folder
        self.instance = instance
        self.log = folder / f"processors-{instance}.log"
        self.address = f"{host}:{free_ports(1)[0]}"
        self._environment = {
            **os.environ,
            **bus.environment(),
            "VIRTFLOW_PROCESSORS_INSTANCE": instance,
            "VIRTFLOW_PROCESSORS_LISTEN": self.address,
            **{f"VIRTFLOW_{key.upper()}": value for key, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> None:
        """Starts it and, with ``ready``, waits until it says that it is."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            command = [*self._inside, *DIES_WITH_US, sys.executable, "-m", "virtflow.cli.main", "processors"]
            self._process = subprocess.Popen(command, env=self._environment, cwd=self._folder, stdin=subprocess.DEVNULL, stderr=log)
        criteria.started(f"processors {self.instance}", self._process, self.address, self.log)
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Waits until ``/readyz`` says so."""
        eventually(f"readiness ({self.log.read_text()[-500:]})", lambda: self.page("/readyz")[0] == 200, seconds)

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages; status 0 where nobody answers."""
        return page(self.address, path)

    def value(self, series: str) -> float:
        """The value of one series of its own metrics; 0 where it is missing."""
        lines = (line.rpartition(" ") for line in self.page("/metrics")[1].splitlines())
        return next((float(value) for name, _, value in lines if name == series), 0.0)

    def terminate(self, seconds: float = 10.0) -> int:
        """Sends TERM and returns the exit code; fails when it is still there after ``seconds``."""
        return self.end(signal.SIGTERM, seconds)

    def kill(self) -> None:
        """Kills it with -9."""
        self.end(signal.SIGKILL, 10.0)

    def end(self, how: signal.Signals, seconds: float) -> int:
        """Sends a signal and waits for the end."""
        assert self._process is not None
        criteria.ends(self._process)
        self._process.send_signal(how)
        return self.wait(seconds)

    def wait(self, seconds: float) -> int:
        """Waits for its end; returns the exit code."""
        assert self._process is not None
        criteria.ends(self._process)
        code = self._process.wait(seconds)
        self._process = None
        return code

    def close(self) -> None:
        """Ends it if it still runs."""
        if self._process is not None:
            self.kill()
