"""What a migration's source says of its job: polls, passes, the completed statistics, and how it ended. Pure."""

from __future__ import annotations

from math import isnan

from msgspec.structs import replace

from virtflow.processors.migrations.convergence import with_pass
from virtflow.processors.migrations.identity import BROKEN_OFF, Relation, is_late, is_running, relation_of
from virtflow.processors.migrations.job_stats import job_numbers
from virtflow.processors.migrations.transitions import NO_NEWS, UNTOLD, Changes, ended, first, may_change, meant
from virtflow.schemas import jobs, states
from virtflow.schemas.jobs import JobType, Operation, Result
from virtflow.schemas.records import NAN, VmEvent, VmMigration


def polled(current: VmMigration | None, event: VmEvent) -> Changes:
    """A poll of a running job."""
    if event.job.get("operation") != Operation.MIGRATION_OUT:
        return ()
    numbers = job_numbers(event.job, completed=False)
    elapsed = float(numbers.get("elapsed_seconds", NAN))
    about = meant(current, event, elapsed)
    if about is None:
        return ()
    over, current = about
    kind = event.job.get("type", JobType.UNBOUNDED)
    if kind in {JobType.FAILED, JobType.CANCELLED} and may_change(current):
        result = Result.FAILED if kind == JobType.FAILED else Result.CANCELLED
        return *over, ended(replace(current, source=event.node, type=jobs.job_type_word(kind)), result, "", event.time)
    if current.result != Result.COMPLETED and current.reason in {NO_NEWS, BROKEN_OFF}:
        current = replace(current, result=Result.RUNNING.value, reason="", ended_timestamp_seconds=NAN)
    if not is_running(current):
        return (*over, replace(current, source=event.node)) if current.source == "" else over
    return *over, _advanced(current, event, numbers, elapsed)


def _advanced(current: VmMigration, event: VmEvent, numbers: dict[str, int | float], elapsed: float) -> VmMigration:
    """A running migration with a poll's numbers, unless it has newer ones."""
    known = current.elapsed_seconds
    if not isnan(known) and not elapsed >= known:
        return current
    kind = event.job.get("type", JobType.UNBOUNDED)
    if kind == JobType.COMPLETED:
        numbers.pop("expected_downtime_seconds", None)
    numbers["memory_iteration"] = max(int(numbers.get("memory_iteration", -1)), current.memory_iteration)
    started = event.time - elapsed if not isnan(elapsed) else event.time
    return replace(
        current,
        source=event.node,
        type=jobs.job_type_word(kind),
        started_timestamp_seconds=first(current.started_timestamp_seconds, started),
        updated_timestamp_seconds=event.time,
        passes=with_pass(current.passes, event.job.get("memory_iteration", -1), event.job.get("memory_remaining", -1)),
        **numbers,
    )


def completed(current: VmMigration | None, event: VmEvent) -> Changes:
    """The completed statistics: the last word."""
    if event.job.get("operation") != Operation.MIGRATION_OUT:
        return ()
    succeeded = event.job.get("success", 1) != 0
    numbers = job_numbers(event.job, completed=succeeded)
    elapsed = float(numbers.get("elapsed_seconds", NAN))
    about = meant(current, event, elapsed)
    if about is None:
        return ()
    over, current = about
    if current.type == jobs.job_type_word(JobType.COMPLETED) and not is_running(current):
        return over
    result = Result.COMPLETED if succeeded else Result.FAILED
    done = replace(
        current,
        source=event.node,
        type=jobs.job_type_word(JobType.COMPLETED if succeeded else JobType.FAILED),
        started_timestamp_seconds=first(current.started_timestamp_seconds, event.time - elapsed),
        updated_timestamp_seconds=event.time,
        **numbers,
    )
    return *over, ended(done, result, "" if succeeded else event.text, event.time)


def iterated(current: VmMigration | None, event: VmEvent) -> Changes:
    """A new pass over the memory: the earliest sign on the source, but a save has passes too, so it begins nothing."""
    if current is None or not is_running(current) or current.source != event.node or relation_of(current, event, NAN) is not Relation.SAME:
        return ()
    return (replace(current, memory_iteration=max(current.memory_iteration, event.iteration)),)


def gone(current: VmMigration | None, event: VmEvent) -> Changes:
    """A polled job is no more, and no event said how it ended."""
    if current is None or not is_running(current) or current.source != event.node or is_late(current, event):
        return ()
    if event.text in {Result.CANCELLED, Result.FAILED}:
        return (ended(current, Result(event.text), "", event.time),)
    if not isnan(current.resumed_timestamp_seconds):
        return (ended(current, Result.COMPLETED, UNTOLD, event.time),)
    if event.state in {-1, states.SHUT_OFF}:
        return (ended(current, Result.UNKNOWN, UNTOLD, event.time),)
    return (ended(current, Result.INCOMPLETE, UNTOLD, event.time),)


def told(current: VmMigration | None, event: VmEvent) -> Changes:
    """QEMU's own status of its migration, at the source."""
    if current is None or current.source != event.node or not may_change(current) or event.text not in {Result.CANCELLED, Result.FAILED}:
        return ()
    if relation_of(current, event, NAN) is not Relation.SAME and not is_running(current):
        return ()
    return (ended(current, Result(event.text), "", event.time),)
