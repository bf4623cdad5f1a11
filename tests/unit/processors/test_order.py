"""Which snapshots are taken, and which open a round."""

from __future__ import annotations

from virtflow.processors.dedup import Orders, Taken
from virtflow.schemas.order import Freshness
from virtflow.schemas.records import NodeSnapshot

NEW, NEW_ROUND = Taken(Freshness.NEW, opens_round=False), Taken(Freshness.NEW, opens_round=True)
DUPLICATE, STALE = Taken(Freshness.DUPLICATE, opens_round=False), Taken(Freshness.STALE, opens_round=False)


def snapshot(sequence: int, part: int = 0, *, boot: str = "b", node: str = "n", collected: float = 0.0) -> NodeSnapshot:
    return NodeSnapshot(node=node, boot_id=boot, sequence=sequence, part=part, collected=collected)


def test_the_parts_of_a_round_are_one_round() -> None:
    """Every part is new, the first one seen opens the round."""
    orders = Orders()
    assert [orders.take(snapshot(4, part)) for part in (0, 1, 2)] == [NEW_ROUND, NEW, NEW]
    assert orders.take(snapshot(5, 0)) == NEW_ROUND


def test_a_round_whose_first_part_is_missing_is_opened_by_the_next() -> None:
    orders = Orders()
    orders.take(snapshot(4, 0))
    assert orders.take(snapshot(5, 1)) == NEW_ROUND


def test_what_was_seen_is_passed_by_whatever_its_clock_says() -> None:
    """Order is (boot id, sequence, part), not time."""
    orders = Orders()
    orders.take(snapshot(4, 1, collected=1000.0))
    assert orders.take(snapshot(4, 1, collected=9999.0)) == DUPLICATE
    assert orders.take(snapshot(4, 0, collected=9999.0)) == STALE
    assert orders.take(snapshot(3, 7, collected=9999.0)) == STALE
    assert orders.take(snapshot(5, 0, collected=1.0)) == NEW_ROUND


def test_a_restarted_producer_begins_anew_and_its_earlier_run_is_stale() -> None:
    orders = Orders()
    orders.take(snapshot(900, boot="first"))
    assert orders.take(snapshot(0, boot="second")) == NEW_ROUND
    assert orders.take(snapshot(901, boot="first")) == STALE


def test_a_producer_that_outlives_a_second_one_of_its_node_is_heard_again() -> None:
    """As when an update is taken back: the rounds of the one that goes on are not left out until it restarts."""
    orders = Orders()
    orders.take(snapshot(900, boot="first"))
    orders.take(snapshot(0, boot="second"))
    assert [orders.take(snapshot(number, boot="first")) for number in range(901, 905)] == [STALE, STALE, NEW_ROUND, NEW_ROUND]


def test_nodes_do_not_disturb_one_another() -> None:
    orders = Orders()
    assert [orders.take(snapshot(1, node=node)) for node in "abc"] == [NEW_ROUND] * 3


def test_what_is_forgotten_comes_again_as_new() -> None:
    """After a rebalance, what was handled but not committed is handled again."""
    orders = Orders()
    orders.take(snapshot(4))
    orders.forget()
    assert orders.take(snapshot(4)) == NEW_ROUND


def test_forged_nodes_cannot_fill_the_memory() -> None:
    orders = Orders(nodes=3)
    for number in range(10):
        orders.take(snapshot(1, node=f"n{number}"))
    assert orders.take(snapshot(1, node="n9")) == DUPLICATE
    assert orders.take(snapshot(1, node="n0")) == NEW_ROUND
