"""Conditions that all queries of a client have while none has an answer: told once, by client, and only where no series ever had the value."""

from __future__ import annotations

import time

import pytest

from tests.support.history_tenants import ROUNDS, write_tenants
from virtflow.history.remote_read.protocol.wire import Asked, Match, Matcher
from virtflow.history.remote_read.reading.labels import wanted_by_all
from virtflow.history.remote_read.reading.reader import Reader
from virtflow.history.remote_read.wanted import CLIENTS, Wanted
from virtflow.history.storage.delta import Store
from virtflow.runtime.settings import Exporter, History, Settings

NODE = ("node", "prom-1")
NAME = ("name", "prom-1")
WHO = ("", "10.0.0.1")
START = float(int(time.time()) // 3_600 * 3_600 - ROUNDS * 60)


def query(*matchers: Matcher) -> Asked:
    return Asked(0, 1, (Matcher(Match.EQUAL, "__name__", "vm_state"), *matchers))


def test_what_each_query_wants_by_equality() -> None:
    external = Matcher(Match.EQUAL, *NAME)
    more = [Matcher(Match.EQUAL, "uuid", "1"), Matcher(Match.REGEX, "project", "a"), Matcher(Match.EQUAL, "flavor", "")]
    assert wanted_by_all([query(external, *more)]) == [NAME, ("uuid", "1")]
    assert wanted_by_all([query(external, *more), query(external)]) == [NAME]
    assert wanted_by_all([query(external), query()]) == []
    assert wanted_by_all([]) == []


def test_it_is_time_to_look_after_20_requests_in_a_row_and_then_seldom() -> None:
    wanted = Wanted()
    looked = [number for number in range(1, 200) if wanted.take(WHO, [NAME])]
    assert looked == [20, 40, 80, 160]


def test_an_answer_begins_the_row_again_and_clients_are_apart() -> None:
    wanted = Wanted()
    for _ in range(19):
        assert not wanted.take(WHO, [NAME, NODE])
    assert not wanted.take(("", "10.0.0.2"), [NAME])
    assert wanted.take(WHO, [NAME]) == [NAME]
    assert not wanted.take(WHO, [])
    assert not any(wanted.take(WHO, [NAME, NODE]) for _ in range(19))


def test_it_is_told_once_and_counted_until_there_is_an_answer() -> None:
    wanted = Wanted()
    for _ in range(20):
        wanted.take(WHO, [NAME])
    assert not wanted.unknown(WHO)
    assert wanted.answered(WHO, NAME, had=False) == 20
    wanted.take(WHO, [NAME])
    assert wanted.unknown(WHO)
    assert wanted.answered(WHO, NAME, had=False) == 0, "it is known already"
    wanted.take(WHO, [])
    assert not wanted.unknown(WHO)


def test_a_value_that_was_there_once_is_not_told() -> None:
    wanted = Wanted()
    for _ in range(20):
        wanted.take(WHO, [NAME])
    assert wanted.answered(WHO, NAME, had=True) == 0
    assert not wanted.unknown(WHO)
    assert wanted.answered(("", "nobody"), NAME, had=False) == 0


def test_clients_that_are_followed_are_bounded() -> None:
    wanted = Wanted()
    for _ in range(20):
        wanted.take(WHO, [NAME])
    wanted.answered(WHO, NAME, had=False)
    for number in range(CLIENTS):
        wanted.take(("", str(number)), [NAME])
    assert not wanted.unknown(WHO)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reader, Reader, str]:
    """Of everything and of one project, and the UUID of a VM without inventory."""
    path = tmp_path_factory.mktemp("wanted") / "history"
    samples, inventories = write_tenants(path, START)
    settings = Settings(history=History(path=str(path), serve_labels={"job": "virtflow"}), exporter=Exporter(vm_labels=["name", "project"]))
    (nobodys,) = {sample.uuid for sample in samples} - {inventory.uuid for inventory in inventories}
    return Reader(Store(settings.history), settings), Reader(Store(settings.history, "shop"), settings), nobodys


def test_values_that_series_have_had(readers: tuple[Reader, Reader, str]) -> None:
    everything, shop, nobodys = readers
    known = [("namespace", "shop"), ("uuid", nobodys), ("device", "vda"), ("state", "running"), ("reason", "io_error"), ("job", "virtflow")]
    assert [pair for pair in known if not everything.had(*pair)] == []
    unknown = [("namespace", "prom-1"), ("uuid", "prom-1"), ("device", "prom-1"), ("state", "prom-1"), ("job", "prom-1"), NAME, NODE]
    assert [pair for pair in unknown if everything.had(*pair)] == []
    assert not shop.had("uuid", nobodys)
