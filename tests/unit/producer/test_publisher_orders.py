"""What the sampling thread and the sending ones share, with every order of two threads tried: right with the lock, wrong without it."""

from __future__ import annotations

from logging import WARNING, LogRecord
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.interleaved import Orders, Pair, Shared, Thing, WatchedLock, threads_by_hand
from virtflow.producer.publishing import events, snapshots
from virtflow.producer.publishing.events import EventPublisher, Pauses
from virtflow.producer.publishing.snapshots import Publisher
from virtflow.producer.types import HypervisorEvent
from virtflow.runtime import log
from virtflow.runtime.log import Throttle
from virtflow.runtime.settings import Producer, Settings
from virtflow.schemas.records import NodeHealth, NodeSnapshot


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No thread is started, and no broker is asked."""
    for module in (snapshots, events):
        monkeypatch.setattr(module, "threading", threads_by_hand())
    monkeypatch.setattr(Client, "folder", str(tmp_path))


# -- the publishers


class Client:
    """A broker's client that nobody asks, and where events' journals are."""

    folder = ""


def a_round(number: int) -> NodeSnapshot:
    return NodeSnapshot(node="n", boot_id="b", sequence=number, collected=0.0, interval=1.0, health=NodeHealth(), vms=[])


def publisher(lock: WatchedLock) -> Thing:
    """One round waits; the ring has room for one."""
    thing = Thing(Publisher(Settings(producer=Producer(ring_rounds=1)), lambda _: Client(), retry_seconds=0.0), "_changed").guarded_by(lock)
    thing.it.offer(a_round(1))
    return thing


def sending(lock: WatchedLock) -> Thing:
    """The round is being sent, and its messages have not arrived."""
    thing = publisher(lock)
    thing.it._awaited()
    return thing


def offer_round(thing: Thing) -> None:
    thing.it.offer(a_round(2))


def settle(thing: Thing) -> None:
    thing.it._settle(*thing.it._current)


def waiting_rounds(thing: Thing) -> object:
    return thing.it.outgoing().spooled_rounds


def event_publisher(lock: WatchedLock) -> Thing:
    """One event was offered."""
    settings = Settings(producer=Producer(journal_folder=Client.folder))
    thing = Thing(EventPublisher(settings, "node", lambda _: Client(), pauses=Pauses(0.001, 0.001, 0.001)), "_changed").guarded_by(lock)
    thing.it._owner = SimpleNamespace(check=lambda: None)
    offer_event(thing)
    return thing


def offer_event(thing: Thing) -> None:
    thing.it.offer(HypervisorEvent("uuid", "vm", "lifecycle", (4, 0)))


def outgoing(thing: Thing) -> object:
    return thing.it.outgoing()


def take_events(thing: Thing) -> object:
    return thing.it._take()


def settling(lock: WatchedLock) -> Thing:
    """An event is to be sent again."""
    thing = event_publisher(lock)
    thing.it._failed.append("event")
    return thing


# -- the log


def throttle(lock: WatchedLock) -> Thing:
    return Thing(Throttle()).guarded_by(lock)


def write_line(thing: Thing) -> object:
    return thing.it.filter(LogRecord("virtflow", WARNING, "", 0, "a warning", None, None))


def one_of_two(thing: Thing) -> bool:
    """Succeeded."""
    return sorted(map(bool, (thing.first[0], thing.second[0]))) == [False, True]


ASKED_AGAIN = "what is read may be outdated at once, and is read again in the next turn"
ONE_STEP = "one step of the interpreter, and nobody walks over what it changes"
SHARED = {
    "Publisher": Shared(
        snapshots,
        "_changed",
        (
            ("offer", Pair(publisher, offer_round, waiting_rounds, lambda thing: thing.second == [1])),
            ("outgoing", Pair(publisher, waiting_rounds, lambda thing: thing.it._awaited(), lambda thing: thing.first == [1])),
            ("close", Pair(publisher, lambda thing: thing.it.close(60.0), waiting_rounds, lambda thing: thing.second == [1])),
            (
                "close",
                Pair(publisher, lambda thing: thing.it.close(60.0), lambda thing: thing.it._awaited(), lambda thing: thing.first == [1]),
            ),
            ("_awaited", Pair(publisher, lambda thing: thing.it._awaited(), waiting_rounds, lambda thing: thing.second == [1])),
            ("_settle", Pair(sending, settle, waiting_rounds, lambda thing: thing.second == [1])),
            ("_count", Pair(publisher, lambda thing: thing.it._count(), offer_round, lambda thing: thing.it._drops.total() == 2)),
        ),
    ),
    "EventPublisher": Shared(
        events,
        "_changed",
        (
            ("offer", Pair(event_publisher, offer_event, outgoing, lambda thing: len(thing.it._offered) == 2)),
            (
                "outgoing",
                Pair(
                    event_publisher,
                    outgoing,
                    offer_event,
                    lambda thing: sum(thing.first[0].events.values()) == thing.first[0].journal_events,
                ),
            ),
            ("close", Pair(event_publisher, lambda thing: thing.it.close(60.0), outgoing, lambda thing: thing.first == [1])),
            ("_over", ASKED_AGAIN),
            ("_take", Pair(event_publisher, take_events, offer_event, lambda thing: len(thing.first[0]) + len(thing.it._offered) == 2)),
            ("_settle", Pair(settling, lambda thing: thing.it._settle(), outgoing, lambda thing: list(thing.it._ready) == ["event"])),
            (
                "_drop",
                Pair(
                    event_publisher,
                    lambda thing: thing.it._drop("x"),
                    lambda thing: thing.it._drop("x"),
                    lambda thing: thing.it._drops["x"] == 2,
                ),
            ),
            ("_tell", ONE_STEP),
        ),
    ),
    "Throttle": Shared(log, "_lock", (("filter", Pair(throttle, write_line, write_line, one_of_two)),)),
}


class TestOrders(Orders):
    """Of all of them."""

    shared = SHARED
