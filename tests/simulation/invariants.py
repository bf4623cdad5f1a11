"""What must hold when a world is over: of what was acknowledged nothing is lost and nothing is there twice, and every drop was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.rollups import compare_rollups
from virtflow.history.storage.table_schemas import EVENT_ROWS, INVENTORY_ROWS, MIGRATION_ROWS, SAMPLES, Table
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.jobs import Kind
from virtflow.schemas.order import Freshness, Position, Seen, advance, freshness, heard
from virtflow.schemas.records import NodeSnapshot, VmEvent, VmInventory, VmMetrics, VmMigration
from virtflow.schemas.topics import EVENTS, INVENTORY, METRICS, MIGRATIONS, SNAPSHOTS, Topic

if TYPE_CHECKING:
    from tests.simulation.world import Outcome, World

RECORDS: Final[dict[Topic, type[Any]]] = {
    METRICS: VmMetrics,
    EVENTS: VmEvent,
    MIGRATIONS: VmMigration,
    INVENTORY: VmInventory,
    SNAPSHOTS: NodeSnapshot,
}
FRESH_INTERVALS: Final = 3.0
ROLLED_UP: Final = 8
"""Every how manieth world's history is rolled up: that takes as long as the rest."""
UNDER_WAY: Final = 40
"""Messages that may be on their way while producers run."""


# -- whether everything has caught up


def caught_up(world: World) -> str:
    """What has not: a program that does not run, a reader that is behind, a VM that is not exported as it is; "" when all has."""
    return _down(world) or _behind(world, slack=UNDER_WAY) or _exporters_late(world)


def drained(world: World) -> str:
    """What is left, when nothing more comes."""
    return _behind(world, slack=0)


def _down(world: World) -> str:
    return ", ".join(name for name, process in world.running.items() if not process.alive)


def _behind(world: World, slack: int) -> str:
    """Partitions that are not read to their ends, by the processors or the history."""
    group = world.network.group("virtflow-processors")
    for topic in (SNAPSHOTS, EVENTS):
        for number, log in enumerate(world.network.recorded(topic.name)):
            offset, _ = group.offsets.get((topic.name, number), (0, ""))
            if offset < log.high - slack:
                return f"processors: {topic.name}[{number}] at {offset} of {log.high}"
            if offset > log.high and not _gone_back(world, topic, number, log.high):
                return f"processors: {topic.name}[{number}] at {offset}, behind its end {log.high}"
    return _history_behind(world, slack)


def _gone_back(world: World, topic: Topic, number: int, end: int) -> bool:
    """Whether a member reads a partition from its end on, or from before it, although more is committed: nothing is until something comes."""
    return any(process.alive and 0 <= app.goes_on(topic.name, number) <= end for process, app in world.watch.streams)


def _history_behind(world: World, slack: int) -> str:
    ours: dict[tuple[str, int], int] = {}
    for service in world.watch.services["history"]:
        consume = service._consume
        if consume is None or not _lives(world, service):
            continue
        waiting = sum(writer.waiting for writer in consume._writers.values()) + len(consume._held)
        if waiting > slack:
            return f"history: {waiting} records wait: {consume.failing}"
        ours |= {key: place.expected for key, place in consume._places.ours.items()}
    for topic in (METRICS, EVENTS, MIGRATIONS, INVENTORY):
        for number, log in enumerate(world.network.recorded(topic.name)):
            expected = ours.get((topic.name, number))
            if expected is None:
                return f"history: nobody has {topic.name}[{number}]"
            if log.high and max(0, expected) < log.high - slack:
                return f"history: {topic.name}[{number}] at {expected} of {log.high}"
    return ""


def _lives(world: World, service: Any) -> bool:  # noqa: ANN401, a Service
    return any(process.alive for process, known in world.watch.processes if known is service)


def _exporters_late(world: World) -> str:
    now = world.kernel.now
    if any(host.clock_error for host in world.hosts.values()):
        return ""
    for process, service, feed in list(world.watch.exporters.values()):
        if not process.alive:
            continue
        if missing := feed.missing():
            return f"{process.name}: {missing}"
        exported = {vm.exported.uuid: vm.exported for vm in service.fleet.vms()}
        for vm in world.fleet.vms:
            life = vm.life(now)
            interval = world.interval
            if now - life.begins < FRESH_INTERVALS * interval + 5 or any(move.begins - 1 < now < move.ends + 10 for move in vm.moves):
                continue
            record = exported.get(vm.uuid)
            if record is None:
                return f"{process.name}: {vm.name} is not exported"
            if record.node != life.node:
                return f"{process.name}: {vm.name} is exported of {record.node}, not {life.node}"
            taken = world.watch.taken_at[record.node, record.boot_id, record.sequence]
            if now - taken > FRESH_INTERVALS * interval + 2:
                return f"{process.name}: {vm.name} is exported as it was {now - taken:.1f} s ago"
    return ""


# -- what must be true at the end


def judge(world: World, outcome: Outcome) -> None:
    """Look at everything; what is wrong goes to the watch."""
    for check in (_rounds, _events, _processed, _stored, _repeats, _migrations_end):
        check(world, outcome.checked)
    if world.seed % ROLLED_UP == 0:
        compare_rollups(world, outcome.checked)
    outcome.checked["scrapes"] = sum(scrapes.count for scrapes in world.watch.scrapes.values())


def _decoded(world: World, topic: Topic, stored: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """The stored messages of a topic with their records; what can't be decoded is a problem: nobody writes such things here."""
    for message in stored:
        if message.value is None:
            continue
        try:
            yield message, world.watch.decoded(message.value, RECORDS[topic])
        except UndecodableError as error:
            world.watch.problem(f"{topic.name} offset {message.offset} can't be decoded: {error}")


def _rounds(world: World, checked: Counter[str]) -> None:
    """Of each run of a producer: a round that is not in the topic was counted as dropped, or was in memory when it ended."""
    sent: dict[tuple[str, str], dict[int, set[int]]] = {}
    for log in world.network.recorded(SNAPSHOTS.name):
        for _, record in _decoded(world, SNAPSHOTS, log.ever):
            sent.setdefault((record.node, record.boot_id), {}).setdefault(record.sequence, set()).add(record.part)
    by_run: dict[str, set[int]] = {}
    for (_, boot), sequences in sent.items():
        by_run[boot] = set(sequences)
    for life in world.watch.producers:
        missing = life.rounds - by_run.get(life.boot, set())
        counted = sum(life.drops[reason] for reason in ("ring_full", "broker_unreachable", "topic_missing", "refused", "too_large"))
        checked["rounds"] += len(life.rounds)
        if len(missing) > counted + life.left_rounds:
            world.watch.problem(
                f"{life.process.name}: {len(missing)} rounds are gone, {counted} were counted and {life.left_rounds} left: {sorted(missing)[:5]}"
            )


def _events(world: World, checked: Counter[str]) -> None:
    """An event that was journaled, or whose producer ended by itself, is in the topic, or was counted; nothing is there that never happened."""
    known: set[tuple[str, str, int]] = set()
    for log in world.network.recorded(EVENTS.name):
        order: dict[tuple[str, str, str], int] = {}
        for _, event in _decoded(world, EVENTS, log.ever):
            identity = event.node, event.boot_id, event.sequence
            if identity not in world.watch.events:
                world.watch.problem(f"{EVENTS.name} has an event that never happened: {identity}")
            run = event.node, event.boot_id, event.uuid
            if identity not in known and event.kind != Kind.JOB and event.sequence < order.get(run, -1):
                world.watch.problem(f"{EVENTS.name}: {identity} comes after {order[run]} of the same VM")
            if event.kind != Kind.JOB:
                order[run] = max(order.get(run, -1), event.sequence)
            known.add(identity)
    checked["events"] += len(world.watch.events)
    uncounted = {identity for identity in world.watch.journaled if identity not in known | world.watch.excused}
    drops: Counter[str] = Counter()
    for life in world.watch.producers:
        drops += life.drops
        if life.clean and not life.events._waits_for_lock and not life.drops["journal_full"] and not life.drops["journal_broken"]:
            uncounted |= life.unjournaled - known
    uncounted -= world.watch.waiting_in_journals()
    lost = drops["event_lost"] + drops["event_refused"] + drops["journal_damaged"]
    if len(uncounted) > lost:
        world.watch.problem(f"{len(uncounted)} events are gone, {lost} were counted: {sorted(uncounted)[:5]}")


def _processed(world: World, checked: Counter[str]) -> None:
    """Every sample of a snapshot that the broker kept is among the metrics, unless it was late for one of the processors."""
    made = _identities(world, METRICS)
    gone = 0
    for log in world.network.recorded(SNAPSHOTS.name):
        kept = {id(stored) for stored in log.kept()}
        dropped = {id(log.ever[place]) for place in log.deleted}
        late = {id(stored) for reading in log.readings() for stored in _late(world, reading)}
        for stored, snapshot in _decoded(world, SNAPSHOTS, log.ever):
            if id(stored) in late:
                continue
            missing = [vm.uuid for vm in snapshot.vms if (vm.uuid, snapshot.node, snapshot.boot_id, snapshot.sequence) not in made]
            checked["samples"] += len(snapshot.vms)
            if missing and id(stored) in kept:
                world.watch.problem(
                    f"processors: {len(missing)} samples of {snapshot.node} {snapshot.boot_id} {snapshot.sequence} (offset {stored.offset}) are gone"
                )
            gone += bool(missing) and id(stored) in dropped
    counted = world.watch.counted("processors", "virtflow_processors_missing_records_total", topic=SNAPSHOTS.name)
    if gone > counted and not _unseen_crash(world, "processors"):
        world.watch.problem(f"processors: {gone} snapshots were deleted before they were processed, {counted:.0f} were counted")


def _late(world: World, reading: Iterable[Any]) -> Iterator[Any]:
    """The snapshots that are late for one who has read nothing before: of two producers of a node that run at once, which one is heard depends on it."""
    seen: dict[str, Seen] = {}
    for stored, snapshot in _decoded(world, SNAPSHOTS, reading):
        position = Position(snapshot.boot_id, snapshot.sequence, snapshot.part)
        known = seen.get(snapshot.node)
        if (fresh := freshness(known, position)) is Freshness.NEW:
            seen[snapshot.node] = advance(known, position)
            continue
        if known is not None and fresh is Freshness.STALE:
            seen[snapshot.node] = heard(known, position)
        yield stored


def _unseen_crash(world: World, service: str) -> bool:
    """Whether a program died, and with it what it had seen and not yet counted."""
    return world.injected.total() - world.injected["retention"] > 0 and service != ""


def _identities(world: World, topic: Topic) -> set[tuple[str, str, str, int]]:
    return {
        (record.uuid, record.node, record.boot_id, record.sequence)
        for log in world.network.recorded(topic.name)
        for _, record in _decoded(world, topic, log.ever)
    }


def _rows(world: World, table: Table, columns: list[str] | None = None) -> list[dict[str, Any]]:
    from tests.simulation.storage import MemoryStore

    rows = MemoryStore(world.tables).open(table).dataset().to_table(columns=columns)
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def _stored(world: World, checked: Counter[str]) -> None:
    """What the broker kept is stored; what it deleted before it was stored was counted."""
    for topic, table in ((METRICS, SAMPLES), (EVENTS, EVENT_ROWS)):
        of_kind = [
            row
            for row in _rows(world, table, ["uuid", "node", "boot_id", "sequence", "kind"])
            if table is not SAMPLES or row["kind"] == "vm"
        ]
        stored = Counter((row["uuid"], row["node"], row["boot_id"], row["sequence"]) for row in of_kind)
        twice = [identity for identity, count in stored.items() if count > 1]
        if twice:
            world.watch.problem(f"history: {len(twice)} of {table.name} are stored more than once: {twice[0]}")
        gone = 0
        skipped = sum(
            world.watch.counted("history", "virtflow_history_skipped_records_total", table=table.name, reason=reason)
            for reason in ("future", "too_late", "timeless")
        )
        ever = set()
        missing = set()
        for log in world.network.recorded(topic.name):
            kept = {id(one) for one in log.kept()}
            dropped = {id(log.ever[place]) for place in log.deleted}
            for message, record in _decoded(world, topic, log.ever):
                identity = record.uuid, record.node, record.boot_id, record.sequence
                ever.add(identity)
                if identity not in stored:
                    gone += id(message) in dropped
                    if id(message) in kept:
                        missing.add(identity)
        checked[f"rows of {table.name}"] += len(stored)
        if len(missing) > skipped:
            world.watch.problem(f"history: {len(missing)} of {table.name} are not stored, {skipped:.0f} were skipped: {min(missing)}")
        if stored.keys() - ever:
            world.watch.problem(f"history: {table.name} has what nobody sent: {next(iter(stored.keys() - ever))}")
        counted = world.watch.counted("history", "virtflow_history_missing_records_total", table=table.name)
        if gone > counted and not _unseen_crash(world, "history"):
            world.watch.problem(f"history: {gone} of {table.name} were deleted before they were stored, {counted:.0f} were counted")


def _repeats(world: World, checked: Counter[str]) -> None:
    """Inventories and migrations: nothing is told twice, and the newest of each VM that the broker kept is there."""
    for topic, table in ((MIGRATIONS, MIGRATION_ROWS), (INVENTORY, INVENTORY_ROWS)):
        rows = _rows(world, table)
        whole = Counter(tuple(sorted((name, str(value)) for name, value in row.items())) for row in rows)
        checked[f"rows of {table.name}"] += len(rows)
        twice = [row for row, count in whole.items() if count > 1]
        if twice:
            world.watch.problem(f"history: {len(twice)} rows of {table.name} are there more than once: {dict(twice[0])}")
        if topic is MIGRATIONS:
            stored = {(row["uuid"], row["revision"]) for row in rows}
            for log in world.network.recorded(topic.name):
                newest = {record.uuid: record for _, record in _decoded(world, topic, log.kept())}
                for uuid, record in newest.items():
                    if (uuid, record.revision) not in stored:
                        world.watch.problem(f"history: the newest migration of {uuid}, revision {record.revision}, is not stored")


def _migrations_end(world: World, checked: Counter[str]) -> None:
    """No migration runs for ever."""
    silence = 20.0
    for log in world.network.recorded(MIGRATIONS.name):
        newest = {record.uuid: record for _, record in _decoded(world, MIGRATIONS, log.kept())}
        checked["migrations"] += len(newest)
        for uuid, record in newest.items():
            over = max((move.ends for move in world.fleet.vm(uuid).moves), default=0.0)
            if record.result == "running" and world.kernel.now - over > silence + 30:
                world.watch.problem(f"the migration of {uuid} from {record.source} to {record.destination} runs for ever")
