"""How many undecodable messages are too many: of one node, and of all."""

from __future__ import annotations

import pytest

from virtflow.processors.dead_letters.dead_letter import Message
from virtflow.processors.dead_letters.limit import (
    KEYS,
    NAMES,
    NODE_SECONDS,
    NODES,
    OTHER,
    STRANGERS,
    DeadLetterLimit,
    Rule,
    TooManyUndecodableError,
)


def limit(window: int = 100, node_window: int = 4, share: float = 0.5) -> DeadLetterLimit:
    return DeadLetterLimit(Rule(window=window, node_window=node_window, share=share))


def message(key: bytes) -> Message:
    return Message(topic="vm.snapshots", partition=3, offset=42, key=key, value=b"\x00garbage", timestamp=1000.0)


def good(it: DeadLetterLimit, *nodes: str, now: float = 0.0) -> None:
    for node in nodes:
        it.decoded(node.encode(), node, now)


def bad(it: DeadLetterLimit, *nodes: str, now: float = 0.0) -> list[str]:
    return [it.undecodable(message(node.encode()), node, now) for node in nodes]


FLEET = [f"node-{number}" for number in range(10)]


def test_one_nodes_undecodable_messages_never_stop_the_others() -> None:
    it = limit()
    good(it, *FLEET)
    assert set(bad(it, *["node-3"] * 10_000)) == {"node-3"}


def test_a_stranger_never_stops_nodes_that_are_known() -> None:
    """Neither one that invents keys, nor one that sends none."""
    it = limit()
    good(it, *FLEET)
    bad(it, *(f"invented-{number}" for number in range(10_000)))
    bad(it, *[""] * 10_000)


def test_processing_stops_when_most_nodes_are_undecodable() -> None:
    """More than half of ten nodes with half of their last four messages each, and half of the window."""
    it = limit(window=20)
    good(it, *FLEET)
    bad(it, *FLEET[:6], *FLEET[:5])
    bad(it, *["node-0"] * 100)
    with pytest.raises(
        TooManyUndecodableError,
        match=r"20 of the last 20 messages .* \(limit: 50% of 20\), and so are those of 6 of 10 nodes; .* vm\.snapshots\[3\] offset 42",
    ):
        bad(it, "node-5")


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_one_node_of_a_few_is_not_most_of_them(nodes: int) -> None:
    """Nor is the only one: a sender alone stops nobody."""
    it = limit()
    good(it, *FLEET[:nodes])
    assert set(bad(it, *["node-0"] * 10_000)) == {"node-0"}


def test_with_a_share_of_one_all_nodes_have_to_fail() -> None:
    it = limit(window=4, node_window=1, share=1.0)
    good(it, "a", "b")
    bad(it, "a", "a", "a", "a")
    with pytest.raises(TooManyUndecodableError, match="2 of 2 nodes"):
        bad(it, "b")


def test_a_few_undecodable_messages_of_every_node_do_not_stop_processing() -> None:
    it = limit()
    for _ in range(1000):
        good(it, *FLEET, *FLEET)
        bad(it, *FLEET)


def test_a_burst_at_the_start_is_measured_against_the_whole_window() -> None:
    """Ten undecodable messages of ten are no reason to stop when a window holds a hundred."""
    it = limit()
    bad(it, *(["a", "b"] * 25)[:49])
    with pytest.raises(TooManyUndecodableError, match=r"50 of the last 50 messages can't be decoded \(limit: 50% of 100\); stopped"):
        bad(it, "b")


def test_the_share_is_taken_over_the_last_messages_only() -> None:
    it = limit(window=10, node_window=1)
    bad(it, "a", "a", "b", "b")
    good(it, *["a", "b"] * 5)
    bad(it, "a", "a", "a", "a")
    with pytest.raises(TooManyUndecodableError, match="5 of the last 10 "):
        bad(it, "b")


def test_before_anything_was_decoded_one_key_does_not_stop_processing() -> None:
    """After a start, one node's backlog may come before everybody else's."""
    it = limit()
    assert set(bad(it, *["new"] * 10_000)) == {"new"}
    with pytest.raises(TooManyUndecodableError):
        bad(it, "another")


def test_before_anything_was_decoded_messages_without_key_stop_processing() -> None:
    it = limit()
    with pytest.raises(TooManyUndecodableError):
        bad(it, *[""] * 50)


@pytest.mark.parametrize("keys", [["a", "b"], [""]])
def test_it_is_undecided_only_where_nobody_is_known_and_the_next_message_may_be_one_too_many(keys: list[str]) -> None:
    it = limit(window=100)
    bad(it, *(keys * 50)[:48])
    assert not it.undecided(0.0)
    bad(it, "a")
    assert it.undecided(0.0)
    good(it, "n")
    assert not it.undecided(0.0)
    assert it.undecided(NODE_SECONDS + 1.0)


@pytest.mark.parametrize("keys", [["a", "b"], [""]])
def test_one_sender_stops_nobody_who_was_looked_up(keys: list[str]) -> None:
    """Several keys, or none, before anything was decoded: they come from a stranger where somebody else sends what can be decoded."""
    it = limit()
    bad(it, *(keys * 50)[:49])
    it.found({"node-1"}, 0.0)
    assert not it.undecided(0.0)
    bad(it, *keys * 1_000)
    good(it, "node-1")


def test_where_nobody_was_found_processing_stops_at_the_next_one() -> None:
    it = limit()
    bad(it, *(["a", "b"] * 25)[:49])
    it.found((), 0.0)
    assert not it.undecided(0.0)
    with pytest.raises(TooManyUndecodableError):
        bad(it, "b")


def test_after_a_decoded_message_it_is_looked_up_again() -> None:
    it = limit()
    bad(it, *["a"] * 49)
    it.found((), 0.0)
    good(it, "n")
    assert it.undecided(NODE_SECONDS + 1.0)


def test_nodes_that_were_looked_up_and_fail_all_of_them_stop_processing() -> None:
    """A release that can't decode the fleet's messages: the nodes are known from before."""
    it = limit(window=20)
    bad(it, *FLEET[:9])
    it.found(FLEET, 0.0)
    with pytest.raises(TooManyUndecodableError, match="6 of 10 nodes"):
        bad(it, *FLEET * 2)


def test_a_node_that_works_again_no_longer_counts() -> None:
    it = limit(window=4)
    good(it, "a", "b", "c")
    bad(it, "a", "a")
    good(it, *["a"] * 4)
    bad(it, "b", "b", "b", "b")
    with pytest.raises(TooManyUndecodableError, match="2 of 3 nodes"):
        bad(it, "c", "c")


def test_a_silent_node_says_nothing_about_what_works() -> None:
    """Nodes that have gone do not hide that all others fail."""
    it = limit(window=4)
    good(it, *FLEET)
    good(it, "a", "b", now=NODE_SECONDS)
    bad(it, "a", "a", "b", now=NODE_SECONDS)
    with pytest.raises(TooManyUndecodableError, match="of 2 nodes"):
        bad(it, "b", now=NODE_SECONDS + 1)


def test_it_is_logged_once_that_a_node_fails_and_once_that_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    it = limit()
    good(it, *FLEET)
    bad(it, *["node-3"] * 100)
    good(it, *["node-3"] * 100)
    assert [record.getMessage() for record in caplog.records] == [
        "node-3: 2 of its last 4 messages can't be decoded; these go to the dead letters, and other nodes are not affected",
        "node-3: its messages are decoded again",
    ]


def test_names_are_bounded_and_strangers_do_not_use_up_those_of_nodes() -> None:
    it = limit(share=1.0)
    nodes = [f"node-{number}" for number in range(NAMES)]
    good(it, *nodes)
    names = bad(it, *(f"invented-{number}" for number in range(1000)))
    assert names == [f"invented-{number}" for number in range(STRANGERS)] + [OTHER] * (1000 - STRANGERS)
    assert bad(it, "node-7") == ["node-7"]
    assert len(set(bad(it, *nodes))) == NAMES - STRANGERS


def test_a_strangers_name_that_is_no_host_name_is_not_shown() -> None:
    it = limit()
    good(it, *FLEET)
    assert bad(it, "", "line\nbreak", "turned\u202e", "x" * 254) == [OTHER] * 4
    assert bad(it, "\u7af6\u3000a\u00a0b\u200d") == ["\u7af6\u3000a\u00a0b\u200d"]


def test_what_is_remembered_is_bounded() -> None:
    it = limit()
    for number in range(max(NODES, KEYS) + 10):
        good(it, f"node-{number}")
    assert (len(it._nodes), len(it._node_of_key)) == (NODES, KEYS)
