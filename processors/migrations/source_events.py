"""Events of a migration's source about its job: polls, iterations, completed statistics, and how it ended. Pure."""

from __future__ import annotations

from math import isnan

from msgspec.structs import replace

from virtflow.processors.migrations.convergence import with_pass
from virtflow.processors.migrations.identity import POST_COPY_FAILED, Relation, is_late, is_running, relation_of
from virtflow.processors.migrations.job_stats import job_numbers
from virtflow.processors.migrations.transitions import (
    END_NOT_REPORTED,
    TIMED_OUT,
    Changes,
    end_migration,
    first_known,
    migration_of,
    result_may_change,
)
from virtflow.schemas import jobs, states
from virtflow.schemas.jobs import JobType, Operation, Result
from virtflow.schemas.records import NAN, VmEvent, VmMigration


def job_polled(current: VmMigration | None, event: VmEvent) -> Changes:
    """A poll of a running job."""
    if event.job.get("operation") != Operation.MIGRATION_OUT:
        return ()
    numbers = job_numbers(event.job, completed=False)
    elapsed = float(numbers.get("elapsed_seconds", NAN))
    about = migration_of(current, event, elapsed)
    if about is None:
        return ()
    over, current = about
    kind = event.job.get("type", JobType.UNBOUNDED)
    if kind in {JobType.FAILED, JobType.CANCELLED} and result_may_change(current):
        result = Result.FAILED if kind == JobType.FAILED else Result.CANCELLED
        return *over, end_migration(replace(current, source=event.node, type=jobs.job_type_word(kind)), result, "", event.time)
    if current.result != Result.COMPLETED and current.reason in {TIMED_OUT, POST_COPY_FAILED}:
        current = replace(current, result=Result.RUNNING.value, reason="", ended_timestamp_seconds=NAN)
    if not is_running(current):
        return (*over, replace(current, source=event.node)) if current.source == "" else over
    return *over, _advanced(current, event, numbers, elapsed)


def _advanced(current: VmMigration, event: VmEvent, numbers: dict[str, int | float], elapsed: float) -> VmMigration:
    """A running migration with the numbers of a poll, unless it has newer ones."""
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
        started_timestamp_seconds=first_known(current.started_timestamp_seconds, started),
        updated_timestamp_seconds=event.time,
        passes=with_pass(current.passes, event.job.get("memory_iteration", -1), event.job.get("memory_remaining", -1)),
        **numbers,
    )


def job_completed(current: VmMigration | None, event: VmEvent) -> Changes:
    """The completed statistics: the final report."""
    if event.job.get("operation") != Operation.MIGRATION_OUT:
        return ()
    succeeded = event.job.get("success", 1) != 0
    numbers = job_numbers(event.job, completed=succeeded)
    elapsed = float(numbers.get("elapsed_seconds", NAN))
    about = migration_of(current, event, elapsed)
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
        started_timestamp_seconds=first_known(current.started_timestamp_seconds, event.time - elapsed),
        updated_timestamp_seconds=event.time,
        **numbers,
    )
    return *over, end_migration(done, result, "" if succeeded else event.text, event.time)


def iteration_reported(current: VmMigration | None, event: VmEvent) -> Changes:
    """A new iteration over the memory. A save has iterations as well, so it does not start a migration."""
    if current is None or not is_running(current) or current.source != event.node or relation_of(current, event, NAN) is not Relation.SAME:
        return ()
    return (replace(current, memory_iteration=max(current.memory_iteration, event.iteration)),)


def job_vanished(current: VmMigration | None, event: VmEvent) -> Changes:
    """A polled job has vanished, and no event reported how it ended."""
    if current is None or not is_running(current) or current.source != event.node or is_late(current, event):
        return ()
    if event.text in {Result.CANCELLED, Result.FAILED}:
        return (end_migration(current, Result(event.text), "", event.time),)
    if (event.state, event.reason) == (states.SHUT_OFF, states.SHUT_OFF_MIGRATED):
        return (end_migration(current, Result.COMPLETED, "", event.time),)
    if not isnan(current.resumed_timestamp_seconds):
        return (end_migration(current, Result.COMPLETED, "", event.time),)
    if event.state in {-1, states.SHUT_OFF}:
        return (end_migration(current, Result.UNKNOWN, END_NOT_REPORTED, event.time),)
    return (end_migration(current, Result.INCOMPLETE, END_NOT_REPORTED, event.time),)


def status_reported(current: VmMigration | None, event: VmEvent) -> Changes:
    """QEMU's own migration status, at the source."""
    if (
        current is None
        or current.source != event.node
        or not result_may_change(current)
        or event.text not in {Result.CANCELLED, Result.FAILED}
    ):
        return ()
    if relation_of(current, event, NAN) is not Relation.SAME and not is_running(current):
        return ()
    return (end_migration(current, Result(event.text), "", event.time),)
