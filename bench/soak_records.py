"""Whether a soak has lost or repeated anything: what the producers' broker acknowledged, what was processed, and what is stored, as multisets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.history import Key, key_of, stored_keys
from virtflow.runtime.kafka.topic_reader import TopicReader
from virtflow.runtime.settings import Settings
from virtflow.schemas.avro.codec import Codec, R
from virtflow.schemas.records import NodeSnapshot, VmMetrics
from virtflow.schemas.topics import METRICS, SNAPSHOTS, Topic

READ_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Compared:
    """Counts of a run. ``rounds_missing`` are the numbers that no round on the topic has, between each producer's first and last one."""

    rounds: int
    rounds_missing: int
    samples: int
    samples_not_processed: int
    samples_repeated_on_the_topic: int
    rows: int
    rows_missing: int
    rows_twice: int
    rows_of_nobody: int

    @property
    def problems(self) -> list[str]:
        """What may not be, in words."""
        wrong = {
            "samples were acknowledged and not processed": self.samples_not_processed,
            "samples were processed and not stored": self.rows_missing,
            "rows are stored more than once": self.rows_twice,
            "rows are stored that nobody sent": self.rows_of_nobody,
        }
        return [f"{count} {what}" for what, count in wrong.items() if count]


def compare(
    rounds: Iterable[tuple[str, str, int]], sent: Iterable[Key], processed: Mapping[Key, int], stored: Mapping[Key, int]
) -> Compared:
    """Compares rounds (node, boot id, sequence), the samples in them, those on the processed topic and those in the table.

    What is repeated on a topic is no error: its identity is the same. In the table it is one.
    """
    there, known = set(rounds), set(sent)
    return Compared(
        rounds=len(there),
        rounds_missing=_missing(there),
        samples=len(known),
        samples_not_processed=len(known - processed.keys()),
        samples_repeated_on_the_topic=sum(processed.values()) - len(processed),
        rows=sum(stored.values()),
        rows_missing=len(processed.keys() - stored.keys()),
        rows_twice=sum(count - 1 for count in stored.values()),
        rows_of_nobody=len(stored.keys() - processed.keys()),
    )


def _missing(rounds: Iterable[tuple[str, str, int]]) -> int:
    by_run: dict[tuple[str, str], list[int]] = defaultdict(list)
    for node, boot, sequence in rounds:
        by_run[node, boot].append(sequence)
    return sum(max(numbers) - min(numbers) + 1 - len(numbers) for numbers in by_run.values())


def compared(settings: Settings, history: Path) -> Compared:
    """Reads both topics and the table to their ends."""
    rounds: set[tuple[str, str, int]] = set()
    sent: set[Key] = set()
    for one in _all(settings, SNAPSHOTS, NodeSnapshot):
        rounds.add((one.node, one.boot_id, one.sequence))
        sent.update((vm.uuid, one.node, one.boot_id, one.sequence) for vm in one.vms)
    return compare(rounds, sent, Counter(map(key_of, _all(settings, METRICS, VmMetrics))), stored_keys(history))


def _all(settings: Settings, topic: Topic, record: type[R]) -> Iterator[R]:
    codec = Codec()
    with TopicReader(settings, topic) as reader:
        while not reader.caught_up:
            for message in reader.read(READ_SECONDS):
                yield codec.decode(message.value(), record)
