"""From a message to its results: decode, check the order, normalise or apply to a migration, encode. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from msgspec import Struct

from virtflow.processors.dead_letters.dead_letter import Message, Result
from virtflow.processors.dedup import Orders
from virtflow.processors.inventory import inventories_of, status_of
from virtflow.processors.migrations.state import Migrations
from virtflow.processors.normalise import normalise_snapshot
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.jobs import Result as Ending
from virtflow.schemas.order import Freshness
from virtflow.schemas.records import NodeSnapshot, VmEvent, VmMigration
from virtflow.schemas.topics import INVENTORY, METRICS, MIGRATIONS, NODES


class Outcome(Struct, frozen=True, gc=False):
    """The result of a message: the messages to produce, how many are VM samples, what was skipped, and the results of ended migrations.

    ``node`` is the one that sent the message.
    """

    results: list[Result]
    node: str = ""
    vm_samples: int = 0
    duplicate: bool = False
    event: bool = False
    ended: tuple[str, ...] = ()
    dropped_values: int = 0
    dropped_vms: int = 0


def outcome_of(message: Message, codec: Codec, orders: Orders) -> Outcome:
    """The results of one message; raises ``UndecodableError`` where it is no ``NodeSnapshot``."""
    snapshot = codec.decode(message.value, NodeSnapshot)
    taken = orders.take(snapshot)
    if taken.freshness is not Freshness.NEW:
        return Outcome([], snapshot.node, duplicate=True)
    normalised = normalise_snapshot(snapshot)
    results = [Result(METRICS, sample.uuid.encode(), codec.encode(sample)) for sample in normalised.metrics]
    results += [Result(INVENTORY, inventory.uuid.encode(), codec.encode(inventory)) for inventory in inventories_of(snapshot)]
    if taken.opens_round:
        results.append(Result(NODES, snapshot.node.encode(), codec.encode(status_of(snapshot))))
    dropped = normalised.dropped
    return Outcome(results, snapshot.node, len(normalised.metrics), dropped_values=len(dropped.values), dropped_vms=dropped.vms)


def outcome_of_event(message: Message, codec: Codec, migrations: Migrations, now: float) -> Outcome:
    """The results of one event; raises ``UndecodableError`` where it is no ``VmEvent``. ``now`` is monotonic seconds."""
    event = codec.decode(message.value, VmEvent)
    before = migrations.newest(event.uuid)
    changes = migrations.apply(event, message.partition, now)
    steps = pairwise((before, *changes))
    ended = tuple(after.result for was, after in steps if after is not None and _ends(was, after))
    return Outcome(migration_results(changes, codec), event.node, event=True, ended=ended)


def _ends(before: VmMigration | None, after: VmMigration) -> bool:
    """Whether a migration has ended that was running, or was not known before."""
    known = before is not None and before.id == after.id and before.result != Ending.RUNNING
    return after.result != Ending.RUNNING and not known


def migration_results(changes: Iterable[VmMigration], codec: Codec) -> list[Result]:
    """The messages that store these migrations."""
    return [Result(MIGRATIONS, change.uuid.encode(), codec.encode(change)) for change in changes]
