"""Errors that are put into the stream's code on purpose, to see in how many worlds the invariants notice them.

Each is a patch of the running program that makes one classical mistake; `docs/simulation.md` says in which seed it was found.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from tests.simulation.standins import Replaced
from virtflow.exporter import fleet as fleet_module
from virtflow.history.maintenance import rollup as rollup_module
from virtflow.history.maintenance.rows import growth as true_growth
from virtflow.history.writer.dedup import Sequences
from virtflow.processors import pipeline
from virtflow.producer.publishing import events as events_module
from virtflow.producer.publishing import journal as journal_module
from virtflow.producer.publishing import journal_records, snapshots
from virtflow.schemas.ownership import Report


def commit_before_store() -> list[Replaced]:
    """The history stores the offsets first, and the rows in a second commit."""
    from tests.simulation.storage import MemoryOpened

    commit = MemoryOpened.commit

    def early(self: MemoryOpened, added: Iterable[Any], numbers: Mapping[str, int], *args: Any, **named: Any) -> None:  # noqa: ANN401, as it is
        commit(self, [], numbers, *args, **named)
        if added:
            commit(self, added, {}, **named)

    return [(MemoryOpened, "commit", early)]


def acknowledge_before_delivery() -> list[Replaced]:
    """The processors acknowledge a message before the broker has its results."""
    deliver = pipeline.Pipeline._deliver

    async def early(self: pipeline.Pipeline, entry: Any, outcome: Any) -> None:  # noqa: ANN401, the module's own
        entry.done = True
        if entry.acknowledge is not None:
            entry.acknowledge()
            entry.acknowledge = None
        await deliver(self, entry, outcome)

    return [(pipeline.Pipeline, "_deliver", early)]


def wrong_order_key() -> list[Replaced]:
    """A producer's rounds have keys of their own: the broker no longer keeps their order."""
    send, sent = snapshots.Publisher._send, itertools.count()

    def spread(self: snapshots.Publisher, node: str, sending: Any) -> None:  # noqa: ANN401, the module's own
        send(self, f"{node}/{next(sent) % 7}", sending)

    return [(snapshots.Publisher, "_send", spread)]


def duplicate_after_rebalance() -> list[Replaced]:
    """The history does not forget what it knew of the tables when partitions change hands."""
    begin = Sequences.begin

    def remembering(self: Sequences, opened: Any) -> None:  # noqa: ANN401, an Opened
        if self._opened is None:
            begin(self, opened)

    return [(Sequences, "begin", remembering)]


def torn_journal_accepted() -> list[Replaced]:
    """The journal takes a record whose checksum is wrong for a whole one."""
    head = struct.Struct(">4sHII")

    def credulous(data: bytes, nonce: int) -> journal_records.Found:
        del nonce
        records, at = [], len(journal_records.HEADER)
        while 0 <= at < len(data) - head.size:
            _, key, length, _ = head.unpack_from(data, at)
            begin = at + head.size
            records.append((data[begin : begin + key], data[begin + key : begin + key + length]))
            at = data.find(journal_records.MARK, begin)
        return journal_records.Found(records, 0)

    return [(journal_module, "read", credulous)]


def lost_final_batch() -> list[Replaced]:
    """A producer that is told to stop does not take what its queue still holds."""

    def over(self: events_module.EventPublisher) -> bool:
        return self._until is not None

    return [(events_module.EventPublisher, "_over", over)]


def ownership_tie() -> list[Replaced]:
    """Of two nodes that report a VM the one with the first name counts, whatever they say."""

    def first(reports: Iterable[Report], migration: Any = None) -> Report:  # noqa: ANN401, a VmMigration
        del migration
        return min(reports, key=lambda report: report.node)

    return [(fleet_module, "authoritative", first)]


def counter_carried_over_nodes() -> list[Replaced]:
    """A roll-up takes a hypervisor's counter for one that goes on at another node."""

    def carried(rows: Any, values: Any, times: Any, *, of_guest: bool) -> Any:  # noqa: ANN401, the module's own
        del of_guest
        return true_growth(rows, values, times, of_guest=True)

    return [(rollup_module, "growth", carried)]


PLANTED: Final[dict[str, Callable[[], list[Replaced]]]] = {
    "commit before store": commit_before_store,
    "acknowledge before delivery": acknowledge_before_delivery,
    "wrong order key": wrong_order_key,
    "duplicate after rebalance": duplicate_after_rebalance,
    "torn journal accepted": torn_journal_accepted,
    "lost final batch at SIGTERM": lost_final_batch,
    "ownership tie": ownership_tie,
    "counter carried over nodes": counter_carried_over_nodes,
}
"""By the name of the mistake."""
