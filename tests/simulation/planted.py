"""Errors that are put into the stream's code on purpose, to see in how many worlds the invariants notice them.

Each is a patch of the running program that makes one classical mistake; `docs/simulation.md` says in which seed it was found.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tests.simulation.faults import Fault
from tests.simulation.invariants import ROLLED_UP
from tests.support.virtual_time.standins import Replaced, replaced
from virtflow.exporter import fleet as fleet_module
from virtflow.history.maintenance import rows as rows_module
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.processors import pipeline
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
    """The history goes on with what it knew itself when it gets a partition back, and not with what the tables say."""
    forget, begin, take = Sequences.begin, TableWriter.begin, TableWriter.take

    def remembering(self: Sequences, opened: Any) -> None:  # noqa: ANN401, an Opened
        if self._opened is None:
            forget(self, opened)

    def noted(self: TableWriter, part: str, offset: int, record: Any) -> None:  # noqa: ANN401, each table has its own record
        self.__dict__.setdefault("own", {})[part] = offset + 1
        take(self, part, offset, record)

    def own(self: TableWriter, parts: Sequence[str]) -> dict[str, int | None]:
        known = self.__dict__.get("own", {})
        return {part: known.get(part, offset) for part, offset in begin(self, parts).items()}

    return [(Sequences, "begin", remembering), (TableWriter, "take", noted), (TableWriter, "begin", own)]


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
    """A producer that is told to stop takes the events that are still on their way for delivered, and its journal forgets them."""
    close = journal_module.Journal.close

    def forgetting(self: journal_module.Journal) -> None:
        for segment in self._segments.values():
            segment.waiting = 0
        close(self)

    return [(journal_module.Journal, "close", forgetting)]


def ownership_tie() -> list[Replaced]:
    """Of two nodes that report a running VM the one with the first name counts, whatever they say, and whenever they said it."""

    def all_of_them(reports: Iterable[Report], *rest: object) -> tuple[Report, ...]:
        del rest
        return tuple(reports)

    def first(reports: Iterable[Report], migration: object = None) -> Report:
        del migration
        return min(reports, key=lambda report: report.node)

    return [(fleet_module, "current_reports", all_of_them), (fleet_module, "authoritative", first)]


def counter_carried_over_nodes() -> list[Replaced]:
    """A roll-up takes a hypervisor's counter at the next node for the one that it was at the last: it grew by the difference."""
    begin = rows_module._begin

    def difference(now: Any, before: Any) -> Any:  # noqa: ANN401, columns of numbers
        return now - before

    def carried(*args: Any, of_guest: bool) -> None:  # noqa: ANN401, the module's own
        del of_guest
        with replaced([(rows_module, "_risen", difference)]):
            begin(*args, of_guest=True)

    return [(rows_module, "_begin", carried)]


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
NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "commit before store": ("history", "storage"),
    "acknowledge before delivery": ("processors", "broker down", "partition"),
    "wrong order key": (),
    "duplicate after rebalance": ("history",),
    "torn journal accepted": ("power cut",),
    "lost final batch at SIGTERM": ("broker down", "partition", "producer"),
    "ownership tie": (),
    "counter carried over nodes": (),
}
"""Kinds of faults, or programs that are hit by one, without which a world can't show the mistake."""
OF_MIGRATIONS: Final = frozenset({"ownership tie", "counter carried over nodes"})
"""Mistakes that show only where a VM migrates."""


def can_show(kind: str, seed: int, moves: int, faults: Sequence[Fault]) -> bool:
    """Whether a world can show the mistake at all, by its migrations and faults: others need not be run to know that they do not."""
    if kind == "counter carried over nodes" and seed % ROLLED_UP:
        return False
    needs = NEEDS[kind]
    hit = not needs or any(fault.kind.startswith(needs) or fault.target.startswith(needs) for fault in faults)
    return hit and (moves > 0 or kind not in OF_MIGRATIONS)
