"""What fails is told by its kind, never by words in a message, and in a line that names what to set."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from deltalake import DeltaTable

from tests.support.command import in_process, one_line_error, virtflow
from tests.support.history import fleet_samples
from virtflow.history import service
from virtflow.history.maintenance.verify import verify
from virtflow.history.query.limits import QueryError
from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import LAYOUT_KEY, Store
from virtflow.history.storage.errors import NewerTableError, StorageError
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.consumer import Consume
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.pace import PACE, Failure, Pace
from virtflow.history.writer.placement import Partition, Placement
from virtflow.history.writer.source import Source
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History, Settings
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.errors import EnvironmentProblemError, SettingError


@pytest.mark.parametrize("name", ["layout-x", "newer", "plain"])
def test_storage_that_fails_is_waited_for_whatever_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket named like a word of an error ended the writer."""
    stop, tries = Stop(), []

    def fail(*_: object) -> Any:  # noqa: ANN401
        tries.append(1)
        if len(tries) == 3:
            stop.set()
        raise StorageError(f"{name}: not reachable")

    writer = service.Service(Settings(history=History(path=str(tmp_path / name))), stop)
    monkeypatch.setattr(service, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(writer, "_build", fail)
    assert writer._built(Codec()) is None
    assert len(tries) == 3


def test_a_table_of_a_newer_layout_ends_the_writer(tmp_path: Path) -> None:
    store = Store(History(path=str(tmp_path)))
    DeltaTable.create(store.table_uri(SAMPLES), SAMPLES.schema, configuration={LAYOUT_KEY: "99"}, raise_if_key_not_exists=False)
    with pytest.raises(NewerTableError, match="layout is 99"):
        store.open(SAMPLES)


def test_a_folder_that_cannot_be_made_is_a_failure_of_the_storage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can't be made"):
        Store(History(path=str(tmp_path / "file" / "history"))).make(SAMPLES)


@pytest.mark.parametrize(
    "words",
    [
        ("query", "SELECT * FROM samples"),
        ("verify",),
        ("range", "vm_state", "--vm", "web-1"),
        ("serve",),
        ("compact",),
    ],
    ids=lambda words: words[0],
)
def test_a_wrong_path_is_named(words: tuple[str, ...], tmp_path: Path) -> None:
    run = virtflow if words == ("serve",) else in_process  # a service takes the process' signals
    line = one_line_error(run("history", words[0], "--history", str(tmp_path / "nosuch"), *words[1:]), 1)
    assert str(tmp_path / "nosuch") in line
    assert "history.path" in line


def test_a_table_that_is_none_is_answered_with_those_that_are(tmp_path: Path) -> None:
    store = Store(History(path=str(tmp_path)))
    store.make(SAMPLES)
    with Query(store, History()) as query, pytest.raises(QueryError) as caught:
        query.run("SELECT * FROM hourli")
    assert "pg_tables" not in str(caught.value)
    assert "samples" in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT "IOError" FROM samples',
        "SELECT * FROM IOError",
        "SELECT 'IOError'::INT FROM samples",
        "SELECT strptime('IOError', '%Y') FROM samples",
        "SELECT regexp_matches(uuid, '(IOError') FROM samples",
        "SELECT error('IOError: x') FROM samples",
        "SELECT 'IOError",
    ],
)
def test_a_word_in_a_query_is_no_damaged_file(sql: str, tmp_path: Path) -> None:
    with Query(stored(tmp_path), History()) as query, pytest.raises(QueryError) as caught:
        query.run(sql)
    assert "history verify" not in str(caught.value)


@pytest.mark.parametrize("damage", ["gone", "torn", "other"])
def test_a_file_that_cannot_be_read_is_for_verify(damage: str, tmp_path: Path) -> None:
    store = stored(tmp_path)
    (file,) = (tmp_path / "samples").glob("day=*/*.parquet")
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[:100] if damage == "torn" else b"x" * len(content))
    with Query(store, History()) as query:
        with pytest.raises(QueryError, match="history verify` names the file"):
            query.run("SELECT max(uuid) FROM samples")
        with pytest.raises(QueryError, match="history verify` names the file"):
            list(query.stream("SELECT uuid FROM samples", text=True)[1])


def stored(path: Path) -> Store:
    """A history with one sample."""
    store = Store(History(path=str(path)))
    writer = TableWriter(store.make(SAMPLES), Sequences())
    writer.begin(["p"])
    writer.take("p", 0, next(iter(fleet_samples(1, 1, range(1)))))
    writer.commit()
    return store


def test_verify_of_nothing_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblemError, match="no table is there"):
        verify(Store(History(path=str(tmp_path))), lambda *_: None)


def test_object_storage_without_keys_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingError, match="s3_access_key_file"):
        Store(History(path="s3://bucket/prefix"))
    done = in_process("history", "query", "--history", "s3://bucket/prefix", "SELECT 1")
    assert "AWS_ACCESS_KEY_ID" in one_line_error(done, done.returncode)
    assert done.returncode
    Store(History(path="s3://bucket/prefix", s3_instance_credentials=True))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    Store(History(path="s3://bucket/prefix"))


def test_who_leads_may_be_asked_while_partitions_come_and_go() -> None:
    """The upkeep's thread asks while the consumer's changes what is ours."""
    consume = object.__new__(Consume)
    consume._places = Placement(cast("Source", SimpleNamespace(names=None)), {})
    consume.count_into(OwnMetrics("history"))
    consume.leads = False
    failed: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        try:
            while not over.is_set():
                assert consume.leads in {True, False}
        except BaseException as error:  # noqa: BLE001, a thread's failure is the test's
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    for number in range(2_000):
        consume._places.ours["vm.metrics", number] = Partition(SAMPLES, str(number), 0)
        consume._counted()
        assert consume.leads
    consume._places.ours.clear()
    consume._counted()
    over.set()
    asking.join()
    assert not failed
    assert not consume.leads


def test_the_end_says_what_was_committed_and_what_was_not() -> None:
    consume = object.__new__(Consume)
    consume._writers, consume._held, consume._stored, consume._failure, consume._at_end = {}, [], 0, Failure(PACE), ""
    consume._commits = 0
    assert consume.left == "nothing committed"
    consume._commits = 1
    assert consume.left == "offsets committed, no new rows"
    consume._stored = 7
    assert consume.left == "7 rows committed"
    consume._held = [None, None]  # type: ignore[list-item]
    consume._failure.note("the disk is full", 0.0)
    assert consume.left == "7 rows committed; 2 records not committed, they are read again: the disk is full"


def test_pauses_after_failures_grow_up_to_the_longest_and_begin_again() -> None:
    failure, now, pauses = Failure(Pace(retry=(1.0, 5.0))), 100.0, list[int]()
    assert not failure.pauses(now)
    for _ in range(4):
        failure.note("away", now)
        pauses.append(next(seconds for seconds in range(10) if not failure.pauses(now + seconds)))
        now += 10.0
    assert (pauses, bool(failure), failure.why) == ([1, 2, 4, 5], True, "away")
    failure.over()
    assert (bool(failure), failure.why, failure.pauses(now - 10.0)) == (False, "", False)
    failure.note("away again", now)
    assert not failure.pauses(now + 1.0)
