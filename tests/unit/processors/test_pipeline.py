"""What is acknowledged when: in order, never before delivery, never for partitions that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.processors import CODEC, snapshot
from virtflow.processors.dead_letters.dead_letter import Message, Result
from virtflow.processors.dead_letters.limit import DeadLetterLimit, Rule, TooManyUndecodableError
from virtflow.processors.delivery import DeliveryFailedError
from virtflow.processors.metrics import Tally
from virtflow.processors.migrations.state import Migrations
from virtflow.processors.pipeline import Pipeline
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.records import VmEvent, VmMigration
from virtflow.schemas.topics import DEAD_LETTERS

METRICS = OwnMetrics("processors")
VM = "d4e232be-ede6-48cb-9c15-42cde320a1fc"
EVENT = VmEvent(uuid=VM, node="sender", boot_id="b", sequence=1, kind="lifecycle", time=1_795_476_243.0)


class Held:
    """A broker in memory: every batch waits until the test lets it through or fails it."""

    def __init__(self) -> None:
        """Nothing has been delivered."""
        self.batches: list[tuple[list[Result], asyncio.Future[None]]] = []

    async def deliver(self, results: list[Result]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.batches.append((results, done))
        await done

    async def let_through(self, number: int) -> None:
        self.batches[number][1].set_result(None)
        await settle()

    async def fail(self, number: int, error: Exception) -> None:
        self.batches[number][1].set_exception(error)
        await settle()


async def settle() -> None:
    """Lets every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def message(offset: int, value: bytes | None = None, node: str = "n") -> Message:
    return Message("vm.snapshots", 0, offset, node.encode(), CODEC.encode(snapshot(node, offset)) if value is None else value, 0.0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10.0))


def pipeline(broker: Held, *, in_flight: int = 10, window: int = 100) -> tuple[Pipeline, list[int]]:
    limit = DeadLetterLimit(Rule(window=window, node_window=2, share=0.5))
    return Pipeline(CODEC, broker, limit, Tally(METRICS), in_flight), []


async def take(pipe: Pipeline, acknowledged: list[int], *messages: Message) -> None:
    for one in messages:
        await pipe.take(one, lambda offset=one.offset: acknowledged.append(offset))  # type: ignore[misc]
    await settle()


def test_nothing_is_acknowledged_before_the_broker_has_it() -> None:
    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker)
        await take(pipe, acknowledged, message(0))
        assert acknowledged == []
        await broker.let_through(0)
        assert acknowledged == [0]

    run(scenario())


def test_acknowledgements_keep_the_order_of_the_messages() -> None:
    """The stream framework would commit past a hole at the beginning of a partition."""

    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker)
        await take(pipe, acknowledged, message(0), message(1), message(2))
        await broker.let_through(2)
        await broker.let_through(1)
        assert acknowledged == []
        await broker.let_through(0)
        assert acknowledged == [0, 1, 2]

    run(scenario())


def test_no_more_than_allowed_is_under_way() -> None:
    """With the broker away, intake stops instead of filling the memory."""

    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker, in_flight=2)
        taking = asyncio.create_task(take(pipe, acknowledged, message(0), message(1), message(2)))
        await settle()
        assert len(broker.batches) == 2
        await broker.let_through(0)
        await taking
        assert len(broker.batches) == 3

    run(scenario())


def test_what_was_revoked_is_not_acknowledged_and_comes_again() -> None:
    """After a rebalance the same message is handled again, by us or another; its first handling acknowledges nothing."""

    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker)
        await take(pipe, acknowledged, message(0))
        pipe.revoked()
        await broker.let_through(0)
        assert acknowledged == []
        await take(pipe, acknowledged, message(0))
        assert len(broker.batches[1][0]) == len(broker.batches[0][0]) > 0
        await broker.let_through(1)
        assert acknowledged == [0]

    run(scenario())


def test_what_waited_when_it_was_revoked_is_not_handled_before_what_comes_again() -> None:
    """It would be ahead of the messages that are delivered again, and those of its producer's run would look late after those of the run before."""

    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker, in_flight=1)
        earlier, later = message(0), message(1, CODEC.encode(snapshot("n", 0, boot_id="later")))
        await take(pipe, acknowledged, earlier)
        waiting = asyncio.create_task(take(pipe, acknowledged, later))
        await settle()
        pipe.revoked()
        await broker.let_through(0)
        await waiting
        assert (len(broker.batches), acknowledged) == (1, [])
        for number, again in enumerate((earlier, later), 1):
            await take(pipe, acknowledged, again)
            assert broker.batches[number][0]
            await broker.let_through(number)
        assert acknowledged == [0, 1]

    run(scenario())


def test_an_event_that_waited_when_it_was_revoked_is_not_applied() -> None:
    """Its partition may be another's by then: it would change migrations that are not this process's."""

    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker)
        migrations, known = Migrations(60.0), asyncio.Event()
        happened = Message("vm.events", 0, 0, VM.encode(), CODEC.encode(EVENT), 0.0)

        async def read_back() -> None:
            await known.wait()
            migrations.restore({}, 0.0)

        pipe.follow(migrations, read_back)
        waiting = asyncio.create_task(pipe.take_event(happened, lambda: acknowledged.append(0)))
        await settle()
        pipe.revoked()
        known.set()
        await waiting
        await settle()
        assert (broker.batches, acknowledged) == ([], [])
        await pipe.take_event(happened, lambda: acknowledged.append(0))
        await settle()
        await broker.let_through(0)
        assert acknowledged == [0]

    run(scenario())


def test_a_poison_message_is_acknowledged_once_its_dead_letter_is_delivered() -> None:
    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker)
        await take(pipe, acknowledged, message(0, b"garbage"))
        ((letter,), _) = broker.batches[0]
        assert letter.topic is DEAD_LETTERS
        await broker.let_through(0)
        assert acknowledged == [0]

    run(scenario())


def test_the_message_too_many_is_neither_set_aside_nor_acknowledged() -> None:
    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker, window=4)
        await take(pipe, acknowledged, message(0, b"garbage"))
        stuck = asyncio.create_task(take(pipe, acknowledged, message(1, b"garbage", "another")))
        assert isinstance(await pipe.failure, TooManyUndecodableError)
        await broker.let_through(0)
        assert (acknowledged, len(broker.batches)) == ([0], 1)
        assert await pipe.drain(1.0)
        stuck.cancel()

    run(scenario())


def test_one_nodes_poison_goes_to_the_dead_letters_and_the_other_node_goes_on() -> None:
    """However many there are: they are counted by their node, and the process goes on."""

    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker, in_flight=1000, window=10)
        counted = METRICS.value("virtflow_processors_node_undecodable_total", "bad")
        await take(pipe, acknowledged, *(message(offset, b"garbage", "bad") for offset in range(500)), message(500, node="good"))
        assert not pipe.failure.done()
        assert {letter.topic for (letter,), _ in broker.batches[:500]} == {DEAD_LETTERS}
        assert len(broker.batches[500][0]) > 1
        assert METRICS.value("virtflow_processors_node_undecodable_total", "bad") == counted + 500

    run(scenario())


def test_one_sender_with_many_keys_or_none_before_everybody_else_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is known that somebody sends what can be decoded; a broker that can't tell yet is asked again."""
    monkeypatch.setattr("virtflow.processors.pipeline.AGAIN_SECONDS", 0.0)

    async def scenario() -> None:
        broker, asked = Held(), 0

        async def senders() -> set[str]:
            nonlocal asked
            asked += 1
            await settle()
            if asked == 1:
                raise EnvironmentProblemError(thing="broker", value="b", why="does not answer", fix="start it")
            return {"good"}

        pipe, acknowledged = pipeline(broker, in_flight=1000, window=10)
        pipe.look_up(senders)
        garbage = [message(offset, b"garbage", ("", "one", "two")[offset % 3]) for offset in range(500)]
        await take(pipe, acknowledged, *garbage, message(500, node="good"))
        assert not pipe.failure.done()
        assert asked == 2
        assert {letter.topic for (letter,), _ in broker.batches[:500]} == {DEAD_LETTERS}
        assert len(broker.batches[500][0]) > 1
        assert not pipe.waits_for

    run(scenario())


def test_an_undecodable_event_is_counted_by_the_node_that_sent_the_vms_last_one() -> None:
    """An event's key is its VM; which node that is on is known from the events that were decoded."""

    async def scenario() -> None:
        pipe, _ = pipeline(Held())
        strangers = METRICS.value("virtflow_processors_node_undecodable_total", "other")
        migrations = Migrations(60.0)
        migrations.restore({}, 0.0)
        pipe.follow(migrations, settle)
        for offset, event in enumerate((CODEC.encode(EVENT), b"garbage")):
            await pipe.take_event(Message("vm.events", 0, offset, VM.encode(), event, 0.0), bool)
        await pipe.take_event(Message("vm.events", 0, 2, b"another", b"garbage", 0.0), bool)
        assert METRICS.value("virtflow_processors_node_undecodable_total", "sender") == 1
        assert METRICS.value("virtflow_processors_node_undecodable_total", "other") == strangers + 1

    run(scenario())


def test_migrations_are_restored_and_time_out_without_an_event() -> None:
    """After partitions were assigned; not where there are none."""

    async def scenario() -> None:
        broker = Held()
        pipe, _ = pipeline(broker)
        migrations, read = Migrations(60.0), 0

        async def read_back() -> None:
            nonlocal read
            read += 1
            migrations.restore({VM: (VmMigration(uuid=VM, id="m", source="a", destination="b", result="running"), 1)}, 0.0)

        pipe.follow(migrations, read_back)
        unassigned = asyncio.create_task(pipe.give_up(100.0, 1_795_476_243.0))
        await settle()
        await broker.let_through(0)
        await unassigned
        assert read == 0
        pipe.assigned([1])
        giving_up = asyncio.create_task(pipe.give_up(100.0, 1_795_476_243.0))
        await settle()
        _, ([result], _) = broker.batches
        assert (read, CODEC.decode(result.value, VmMigration).result) == (1, "unknown")
        await broker.let_through(1)
        await giving_up
        pipe.assigned([1])
        assert not migrations.restored

    run(scenario())


def test_migrations_that_the_broker_has_lost_are_stored_again() -> None:
    async def scenario() -> None:
        broker = Held()
        pipe, _ = pipeline(broker)
        migrations = Migrations(60.0)
        pipe.follow(migrations, settle)
        pipe.assigned([1])
        newest = VmMigration(uuid=VM, id="m", source="a", destination="b", result="completed", revision=2)
        migrations.restore({VM: (newest, 1)}, 0.0)
        again = asyncio.create_task(pipe.store_again({VM: (replace(newest, result="running", revision=1), 1)}))
        await settle()
        [([result], _)] = broker.batches
        assert CODEC.decode(result.value, VmMigration).result == "completed"
        await broker.fail(0, DeliveryFailedError("fenced"))
        await again
        assert isinstance(await pipe.failure, DeliveryFailedError)

    run(scenario())


def test_draining_waits_for_what_is_under_way_and_takes_nothing_more() -> None:
    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker)
        await take(pipe, acknowledged, message(0))
        draining = asyncio.create_task(pipe.drain(5.0))
        await settle()
        late = asyncio.create_task(take(pipe, acknowledged, message(1)))
        await broker.let_through(0)
        assert await draining
        assert (acknowledged, len(broker.batches)) == ([0], 1)
        late.cancel()

    run(scenario())


def test_draining_gives_up_in_time() -> None:
    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker)
        await take(pipe, acknowledged, message(0))
        assert not await pipe.drain(0.01)
        assert acknowledged == []

    run(scenario())


def test_a_delivery_that_can_not_go_on_is_a_failure_and_acknowledges_nothing_behind_it() -> None:
    async def scenario() -> None:
        broker = Held()
        pipe, acknowledged = pipeline(broker)
        await take(pipe, acknowledged, message(0), message(1))
        await broker.fail(0, DeliveryFailedError("fenced"))
        await broker.let_through(1)
        assert isinstance(await pipe.failure, DeliveryFailedError)
        assert acknowledged == []

    run(scenario())
