"""Both hosts' events become one migration: the real one of the recording, and a table of what can go wrong."""

from __future__ import annotations

from itertools import pairwise
from math import isnan

import pytest

from tests.support.migration_events import BEGIN, SAVE, Host, followed, whole
from tests.support.recorded_events import MIGRATED, recorded_events
from virtflow.processors.migrations.identity import POST_COPY_FAILED
from virtflow.processors.migrations.reducer import time_out
from virtflow.processors.migrations.transitions import END_NOT_REPORTED, SUPERSEDED, TIMED_OUT
from virtflow.schemas.records import VmEvent, VmMigration


def hosts(skew: float = 0.0) -> tuple[Host, Host]:
    return Host("a"), Host("b", skew)


def ends(migration: VmMigration) -> tuple[str, str, str]:
    return migration.source, migration.destination, migration.result


def test_the_recorded_migration() -> None:
    """The lab's migration: both hosts, every moment, and the final numbers are exactly those of the completed statistics."""
    states = followed(recorded_events(MIGRATED))
    assert len({state.id for state in states}) == 1
    revisions = [state.revision for state in states]
    assert revisions == sorted(set(revisions))
    assert {state.result for state in states[:-2]} == {"running"}
    last = states[-1]
    assert ends(last) == ("node1", "node2", "completed")
    assert (last.name, last.operation, last.type, last.kind) == ("web-1", "migration_out", "completed", "pre_copy")
    assert (last.elapsed_seconds, last.downtime_seconds, last.setup_seconds) == (10.568, 0.105, 0.014)
    assert isnan(last.expected_downtime_seconds)
    assert (last.data_total_bytes, last.data_processed_bytes, last.data_remaining_bytes) == (202121216, 127543753, 0)
    assert (last.memory_bytes_per_second, last.memory_normal_bytes, last.memory_constant_bytes) == (26768641, 31022 * 4096, 25441 * 4096)
    assert (last.memory_iteration, last.memory_page_size_bytes, last.memory_dirty_bytes_per_second) == (6, 4096, 0)
    assert last.started_timestamp_seconds == pytest.approx(1795476255.039)
    assert last.paused_timestamp_seconds == 1795476265.48
    assert last.resumed_timestamp_seconds == 1795476265.562
    assert last.ended_timestamp_seconds == 1795476267.674
    assert (last.progress_ratio, last.expected_remaining_seconds) == (1.0, 0.0)


def test_expected_and_real_downtime_never_mix() -> None:
    """While it runs the job's downtime is a guess, afterwards a fact; each has its own field."""
    states = followed(recorded_events(MIGRATED))
    running = [state for state in states if state.result == "running"]
    assert running[-1].expected_downtime_seconds == 0.434
    assert all(isnan(state.downtime_seconds) for state in running)


def test_fields_appear_as_the_job_goes_on() -> None:
    """What libvirt has not said yet is absent, never 0."""
    first = next(state for state in followed(recorded_events(MIGRATED)) if state.source)
    assert (first.memory_bytes_per_second, first.memory_page_size_bytes, first.memory_normal_bytes) == (-1, -1, -1)
    assert first.elapsed_seconds == 0.613


A, B = "a", "b"


def _cancelled(a: Host, b: Host) -> list[VmEvent]:
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), b.lifecycle(2, 5, 5), a.gone(2.5, text="cancelled")]


def _failed(a: Host, b: Host) -> list[VmEvent]:
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), b.lifecycle(2, 5, 5), a.gone(2.5, text="failed")]


def _untold(a: Host, b: Host) -> list[VmEvent]:
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), b.lifecycle(2, 5, 5), a.gone(2.5)]


def _told_by_qemu(a: Host, b: Host) -> list[VmEvent]:
    cancelled = a.event(2, "migration_status", text="cancelled")
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), a.event(1.9, "migration_status", text="cancelling"), cancelled, a.gone(2.5)]


def _told_after_gone(a: Host, b: Host) -> list[VmEvent]:
    *begin, status, gone = [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), a.event(2, "migration_status", text="cancelled"), a.gone(2.5)]
    return [*begin, gone, status]


def _seen_by_a_poll(a: Host, b: Host) -> list[VmEvent]:
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), a.poll(2, 2.0, type=5), a.gone(3.0)]


def _resumed_at_the_source(a: Host, b: Host) -> list[VmEvent]:
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), a.lifecycle(2, 3, 1), a.lifecycle(2.1, 4, 1)]


def _crashed_at_the_source(a: Host, b: Host) -> list[VmEvent]:
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), a.lifecycle(2, 5, 2)]


def _without_start(a: Host, b: Host) -> list[VmEvent]:
    return whole(a, b)[-1:]


def _without_start_and_numbers(a: Host, b: Host) -> list[VmEvent]:
    return whole(a, b)[-2:-1]


def _source_unknown(a: Host, b: Host) -> list[VmEvent]:
    del a
    return [b.lifecycle(0.1, 2, 1), b.lifecycle(4, 4, 1)]


def _destination_unknown(a: Host, b: Host) -> list[VmEvent]:
    return [event for event in whole(a, b) if event.node == "a"]


def _source_first_then_destination(a: Host, b: Host) -> list[VmEvent]:
    return sorted(whole(a, b), key=lambda event: event.node)


def _destination_first_then_source(a: Host, b: Host) -> list[VmEvent]:
    return sorted(whole(a, b), key=lambda event: event.node, reverse=True)


def _twice(a: Host, b: Host) -> list[VmEvent]:
    return [event for event in whole(a, b) for _ in range(2)]


def _all_again(a: Host, b: Host) -> list[VmEvent]:
    return whole(a, b) * 2


def _backwards(a: Host, b: Host) -> list[VmEvent]:
    return whole(a, b)[::-1]


def _post_copy(a: Host, b: Host) -> list[VmEvent]:
    begin = [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), a.lifecycle(2, 3, 1), a.lifecycle(2.01, 3, 7), b.lifecycle(2.1, 4, 3)]
    return [*begin, a.poll(3, 3.0), b.lifecycle(3.1, 4, 1), a.lifecycle(3.2, 5, 3), a.completed(3.2, 3.2)]


def _post_copy_without_numbers(a: Host, b: Host) -> list[VmEvent]:
    return _post_copy(a, b)[:-1]


def _post_copy_broken(a: Host, b: Host) -> list[VmEvent]:
    return [*_post_copy(a, b)[:5], a.lifecycle(2.5, 3, 8), b.lifecycle(2.5, 3, 8)]


def _post_copy_recovered(a: Host, b: Host) -> list[VmEvent]:
    begin = [*_post_copy(a, b)[:5], a.lifecycle(2.5, 3, 8)]
    return [*begin, b.lifecycle(9, 4, 3), b.lifecycle(10, 4, 1), a.lifecycle(10.2, 5, 3), a.completed(10.2, 10.2)]


def _left_defined_and_unheard(a: Host, b: Host) -> list[VmEvent]:
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), a.gone(2.5, state=5, reason=4)]


def _left_defined_and_found(a: Host, b: Host) -> list[VmEvent]:
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), a.event(2.5, "state", state=5, reason=4)]


def _shut_off_and_found(a: Host, b: Host) -> list[VmEvent]:
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), a.event(2.5, "state", state=5, reason=1)]


def _left_on_an_earlier_hop(a: Host, b: Host) -> list[VmEvent]:
    stale = a.event(-5.0, "state", state=5, reason=4)
    return [b.lifecycle(0.1, 2, 1), a.poll(1, 1.0), stale]


def _save(a: Host, b: Host) -> list[VmEvent]:
    del b
    return [a.poll(1, 1.0, SAVE), a.event(1.5, "migration_iteration", iteration=1), a.completed(2, 2.0, SAVE), a.lifecycle(2.1, 5, 4)]


TABLE = [
    (whole, (A, B, "completed"), ""),
    (_cancelled, (A, B, "cancelled"), ""),
    (_failed, (A, B, "failed"), ""),
    (_untold, (A, B, "incomplete"), END_NOT_REPORTED),
    (_told_by_qemu, (A, B, "cancelled"), ""),
    (_told_after_gone, (A, B, "cancelled"), ""),
    (_seen_by_a_poll, (A, B, "cancelled"), ""),
    (_resumed_at_the_source, (A, B, "incomplete"), END_NOT_REPORTED),
    (_crashed_at_the_source, (A, B, "failed"), "the VM stopped at the source: crashed"),
    (_without_start, (A, "", "completed"), ""),
    (_without_start_and_numbers, (A, "", "completed"), ""),
    (_source_unknown, ("", B, "running"), ""),
    (_destination_unknown, (A, "", "completed"), ""),
    (_source_first_then_destination, (A, B, "completed"), ""),
    (_destination_first_then_source, (A, B, "completed"), ""),
    (_twice, (A, B, "completed"), ""),
    (_all_again, (A, B, "completed"), ""),
    (_post_copy, (A, B, "completed"), ""),
    (_post_copy_broken, (A, B, "failed"), POST_COPY_FAILED),
    (_post_copy_recovered, (A, B, "completed"), ""),
    (_post_copy_without_numbers, (A, B, "completed"), ""),
    (_left_defined_and_unheard, (A, B, "completed"), ""),
    (_left_defined_and_found, (A, B, "completed"), ""),
    (_shut_off_and_found, (A, B, "running"), ""),
    (_left_on_an_earlier_hop, (A, B, "running"), ""),
]


@pytest.mark.parametrize("skew", [0.0, 3600.0, -3600.0])
@pytest.mark.parametrize(("events", "expected", "reason"), TABLE, ids=[row[0].__name__ for row in TABLE])
def test_how_it_ends(events: object, expected: tuple[str, str, str], reason: str, skew: float) -> None:
    """Result and both hosts are right whatever is missing or comes again, and whatever the destination's clock says."""
    assert callable(events)
    states = followed(events(*hosts(skew)))
    assert (ends(states[-1]), states[-1].reason) == (expected, reason)
    assert len({state.id for state in states}) == 1


def test_backwards() -> None:
    """The whole migration in reverse: nothing but the order of telling is lost."""
    states = followed(_backwards(*hosts()))
    last = states[-1]
    assert (ends(last), last.downtime_seconds, last.resumed_timestamp_seconds) == ((A, B, "completed"), 0.105, BEGIN + 4.1)


def test_a_repeated_event_changes_nothing() -> None:
    """At-least-once delivery: the second time an event goes out nothing does."""
    once, twice = followed(whole(*hosts())), followed(_twice(*hosts()))
    assert [state.revision for state in once] == [state.revision for state in twice]


def test_other_jobs_are_no_migrations() -> None:
    """A save, a dump or a backup has polls, passes and completed statistics, too."""
    assert followed(_save(*hosts())) == []


def test_there_and_back_five_times() -> None:
    """Ten migrations in a row are ten, each with its own ends; late repeats of earlier ones change nothing."""
    a, b = hosts(skew=-3600.0)
    events = [event for n in range(5) for event in whole(a, b, n * 20.0) + whole(b, a, n * 20.0 + 10.0)]
    states = followed(events)
    found = {state.id: ends(state) for state in states}
    assert list(found.values()) == [(A, B, "completed"), (B, A, "completed")] * 5
    assert followed(events, states[-1]) == [states[-1]]


@pytest.mark.parametrize("elapsed", [0.3, 0.9])
def test_a_restarted_one_is_another_though_iterations_count_on(elapsed: float) -> None:
    """Cancelled and started again at once: QEMU may go on counting its passes; the job's own time starts again."""
    a, b = hosts()
    first = [b.lifecycle(0.1, 2, 1), a.poll(5, 5.0, memory_iteration=7), a.gone(5.5, text="cancelled")]
    again = [b.lifecycle(5.6, 2, 1), a.poll(6.0, elapsed, memory_iteration=8), a.completed(8, 2.9)]
    states = followed([*first, *again])
    assert [ends(state) for state in states if state.result != "running"] == [(A, B, "cancelled"), (A, B, "completed")]
    missed = followed([*first[:-1], a.poll(6.0, elapsed, memory_iteration=8)])
    assert [(state.result, state.reason) for state in missed[-2:]] == [("unknown", SUPERSEDED), ("running", "")]


def test_one_that_never_ends_is_given_up_and_told_right_later() -> None:
    """The source's host died: unknown by policy. When its journal is sent after all, the truth counts."""
    a, b = hosts()
    events = whole(a, b)
    running = followed(events[:4])[-1]
    lost = time_out(running, BEGIN + 100, BEGIN + 10)
    assert (lost.result, lost.reason, lost.ended_timestamp_seconds) == ("unknown", TIMED_OUT, BEGIN + 100)
    assert lost.revision > running.revision
    last = followed(events[4:], lost)[-1]
    assert (ends(last), last.ended_timestamp_seconds, last.id) == ((A, B, "completed"), BEGIN + 5.0 - 0.1, running.id)
    unknown_source = followed(_source_unknown(*hosts()))[-1]
    assert ends(time_out(unknown_source, BEGIN + 100, BEGIN + 10)) == ("", B, "completed")
    handed = followed(events[:6])[-1]
    assert time_out(handed, BEGIN + 100, BEGIN + 10).result == "completed"


def test_a_given_up_one_that_goes_on_runs() -> None:
    """A poll after the silence: it has been running all along."""
    a, b = hosts()
    running = followed([b.lifecycle(0.1, 2, 1), a.poll(1, 1.0)])[-1]
    back = followed([a.poll(200, 200.0)], time_out(running, BEGIN + 90, BEGIN + 10))[-1]
    assert (back.result, back.id, back.elapsed_seconds) == ("running", running.id, 200.0)
    assert isnan(back.ended_timestamp_seconds)


def test_a_new_uuid_of_the_same_name_is_another_vm() -> None:
    """Names join nothing: the caller keeps one migration per UUID, and the record carries it."""
    state = followed(whole(*hosts()))[-1]
    assert state.uuid == "01c4627c-7455-4be4-b014-9523f6d7e739"


def test_numbers_never_go_back() -> None:
    """A poll that overtakes another does not undo it, and iterations only rise."""
    a, b = hosts()
    one, two = a.poll(1, 1.0, memory_iteration=1, data_remaining=90), a.poll(2, 2.0, memory_iteration=2, data_remaining=80)
    states = followed([b.lifecycle(0.1, 2, 1), two, one])
    assert (states[-1].data_remaining_bytes, states[-1].memory_iteration) == (80, 2)
    for before, after in pairwise(followed(whole(*hosts()))):
        assert not after.elapsed_seconds < before.elapsed_seconds


def test_what_a_producer_finds_at_its_start_makes_up_for_lost_events() -> None:
    """The destination's producer was down while the VM arrived and went on."""
    a, b = hosts()
    running = [a.poll(1, 1.0), b.event(2, "state", state=3, reason=11)]
    assert ends(followed(running)[-1]) == (A, B, "running")
    handed = followed([*running, b.event(3, "state", state=1, reason=2), a.gone(4, state=-1)])[-1]
    assert (ends(handed), handed.resumed_timestamp_seconds) == ((A, B, "completed"), BEGIN + 3)
