"""What the history's tests share: records with a known truth, the writer as a process of its own, and what is stored."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from tests.support import criteria
from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment
from tests.support.patient_producer import produce_patiently
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES, Table
from virtflow.processors.inventory import inventories_of
from virtflow.processors.normalise import normalise_snapshot
from virtflow.producer.simulator.service import Fleet, SimulatedNode
from virtflow.runtime.settings import History
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import Record, VmInventory, VmMetrics

ROOT: Final = Path(__file__).resolve().parents[2]
START: Final = 1_790_000_000.0
STEADY: Final = 2603
"""A seed of the simulator whose first 40 VMs of the first node, and 8 of the second, live for ever: whatever the clock says, all are there."""
Key = tuple[str, str, str, int]


def fleet_samples(  # noqa: PLR0913, options by name
    nodes: int, vms: int, rounds: range, *, interval: float = 10.0, start: float = START, steady: bool = True
) -> Iterator[VmMetrics]:
    """Samples of simulated VMs, round by round; ``rounds`` are the sequences.

    In a large fleet some VMs come and go, always the same ones at ``START``. ValueError where that would differ by the clock, unless
    the caller counts what it gets and is not ``steady``.
    """
    fleet = Fleet(nodes, vms, interval, 300.0, STEADY)
    simulated = [SimulatedNode(fleet, fleet.node(index), f"boot-{index}") for index in range(nodes)]
    for sequence in rounds:
        for node in simulated:
            found = normalise_snapshot(node.round_at(sequence, start + sequence * interval)).metrics
            if steady and len(found) != vms and start != START:
                raise ValueError(f"{len(found)} of {vms} VMs at {start:.0f}: seed {STEADY} has no such steady fleet")
            yield from found


def fleet_inventories(nodes: int, vms: int, *, start: float = START) -> list[VmInventory]:
    """The inventories of the same VMs."""
    fleet = Fleet(nodes, vms, 10.0, 300.0, STEADY)
    snapshots = [SimulatedNode(fleet, fleet.node(index), f"boot-{index}").round_at(0, start) for index in range(nodes)]
    return [inventory for snapshot in snapshots for inventory in inventories_of(snapshot)]


def producing_client(address: str) -> Producer:
    """A client that sends as the processors do. A new one may send after half a second at the earliest, once it has its identity."""
    config = {"bootstrap.servers": address, "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 20}
    config |= {"compression.type": "zstd", "compression.level": 1}
    return Producer(config)


def produce(
    address: str, topic: str, records: Iterable[Record | bytes], codec: Codec | None = None, *, client: Producer | None = None
) -> int:
    """Produces records, keyed by uuid, by a client of its own unless there is one, and returns how many when all are acknowledged."""
    codec = codec or Codec()
    failed: list[Any] = []
    producer = client or producing_client(address)
    count = 0
    for record in records:
        count += 1
        value, key = (record, b"x") if isinstance(record, bytes) else (codec.encode(record), getattr(record, "uuid", "").encode())
        produce_patiently(producer, topic, value, key, lambda error, _: failed.append(error) if error else None)
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not failed
    return count


def key_of(sample: VmMetrics) -> Key:
    """What identifies a sample."""
    return sample.uuid, sample.node, sample.boot_id, sample.sequence


def stored_keys(path: Path | str, settings: History | None = None) -> Counter[Key]:
    """The samples in the table, as a multiset."""
    opened = Store(settings or History(path=str(path))).open(SAMPLES)
    import pyarrow.compute as pc

    rows = opened.dataset().to_table(columns=["uuid", "node", "boot_id", "sequence"], filter=pc.field("kind") == "vm").to_pylist()
    return Counter((row["uuid"], row["node"], row["boot_id"], row["sequence"]) for row in rows)


def rows_of(path: Path | str, table: Table) -> list[dict[str, Any]]:
    """All rows of a table."""
    rows: list[dict[str, Any]] = Store(History(path=str(path))).open(table).dataset().to_table().to_pylist()
    return rows


class Writer:
    """``virtflow history write`` in a process of its own."""

    def __init__(
        self, address: str, path: Path | str, folder: Path, env: Mapping[str, str] | None = None, *, inside: Sequence[str] = ()
    ) -> None:
        """Nothing runs before ``start``; ``inside`` is what starts it somewhere else, as ``nsenter`` does."""
        self._inside = inside
        self.path = path
        self.log = folder / "writer.log"
        (self.port,) = free_ports(1)
        self._words = ["history", "write", "--history", str(path), "--bootstrap-servers", address]
        self._words += ["--listen", f"127.0.0.1:{self.port}"]
        self._env = environment(
            {
                "VIRTFLOW_HISTORY_COMMIT_SECONDS": "0.5",
                "VIRTFLOW_HISTORY_MAINTAIN_SECONDS": "0",
                "VIRTFLOW_HISTORY_RAW_DAYS": "3650",
                "PYTHONPATH": f"{ROOT / '.types'}:{ROOT}",
                "VIRTFLOW_KAFKA_CLIENT": "session.timeout.ms=6000,heartbeat.interval.ms=1000",
                **(env or {}),
            }
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, failpoint: Sequence[str] = ()) -> None:
        """Starts it and returns at once; with a failpoint (name and how often it is passed) it kills itself there."""
        program = [sys.executable, "-m", "tests.support.failpoints", *failpoint] if failpoint else [str(PROGRAM)]
        command = [*self._inside, *DIES_WITH_US, *program, *self._words]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self._env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        criteria.started("history writer", self.process, f"127.0.0.1:{self.port}", self.log)
        if failpoint:
            criteria.ends(self.process)

    def wait_for_death(self, seconds: float = 30.0) -> None:
        """Waits until it has killed itself."""
        assert self.process
        assert self.process.wait(seconds) == -signal.SIGKILL, self.tail
        self.process = None

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        assert self.process
        criteria.ends(self.process)
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process
        criteria.ends(self.process)
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.process = None
        return code

    def signal(self, number: int) -> None:
        """Sends a signal."""
        assert self.process
        self.process.send_signal(number)

    def ready(self) -> str:
        """What its /readyz says: "ready", or what is missing."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as reply:
                return str(reply.read().decode().strip())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode().strip()
        except OSError as error:
            return f"no answer: {error}"

    def value(self, series: str) -> float:
        """The value of one series of its own metrics; 0 where it is missing."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} ")), 0.0)

    def until(self, true: Callable[[], bool], seconds: float = 30.0) -> None:
        """Waits until something is true; fails with its log when it is not in time."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"{self.ready()}: {self.tail}"
            time.sleep(0.1)

    @property
    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]


@contextmanager
def writing(*writers: Writer) -> Iterator[None]:
    """Writers that run for a while and are ended however the test ends."""
    try:
        for writer in writers:
            writer.start()
        yield
    finally:
        for writer in writers:
            if writer.process is not None:
                writer.kill()


def wait_for_samples(path: Path | str, count: int, seconds: float, writer: Writer, settings: History | None = None) -> Counter[Key]:
    """Waits until so many samples are stored; fails with the writer's log when they are not in time."""
    deadline = time.monotonic() + seconds
    store = Store(settings or History(path=str(path)))
    while True:
        if store.exists(SAMPLES):
            stored = stored_keys(path, settings)
            if stored.total() >= count:
                return stored
        else:
            stored = Counter()
        assert time.monotonic() < deadline, f"{stored.total()} of {count} samples stored: {writer.tail}"
        time.sleep(0.2)
