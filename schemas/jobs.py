"""Words for libvirt's numbers about jobs and life-cycle events. An unknown number passes through as itself.

Source: libvirt's ``virDomainJobType``, ``virDomainJobOperation``, ``virDomainEventType`` and its detail enumerations.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final


class JobType(IntEnum):
    """What a job's statistics are about: nothing, a job under way, or one that has ended."""

    NONE = 0
    BOUNDED = 1
    UNBOUNDED = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5


class Operation(IntEnum):
    """What a job does; only ``MIGRATION_OUT`` is a migration as its source sees it."""

    UNKNOWN = 0
    START = 1
    SAVE = 2
    RESTORE = 3
    MIGRATION_IN = 4
    MIGRATION_OUT = 5
    SNAPSHOT = 6
    SNAPSHOT_REVERT = 7
    DUMP = 8
    BACKUP = 9
    SNAPSHOT_DELETE = 10


class Lifecycle(IntEnum):
    """The life-cycle events."""

    DEFINED = 0
    UNDEFINED = 1
    STARTED = 2
    SUSPENDED = 3
    RESUMED = 4
    STOPPED = 5
    SHUTDOWN = 6
    PMSUSPENDED = 7
    CRASHED = 8


STARTED_MIGRATED: Final = 1
SUSPENDED_MIGRATED: Final = 1
SUSPENDED_POSTCOPY: Final = 7
SUSPENDED_POSTCOPY_FAILED: Final = 8
RESUMED_MIGRATED: Final = 1
RESUMED_POSTCOPY: Final = 3
RESUMED_POSTCOPY_FAILED: Final = 4
STOPPED_MIGRATED: Final = 3

LIFECYCLE_DETAILS: Final[dict[int, tuple[str, ...]]] = {
    Lifecycle.DEFINED: ("added", "updated", "renamed", "from_snapshot"),
    Lifecycle.UNDEFINED: ("removed", "renamed"),
    Lifecycle.STARTED: ("booted", "migrated", "restored", "from_snapshot", "wakeup", "recovered"),
    Lifecycle.SUSPENDED: (
        "paused",
        "migrated",
        "io_error",
        "watchdog",
        "restored",
        "from_snapshot",
        "api_error",
        "postcopy",
        "postcopy_failed",
    ),
    Lifecycle.RESUMED: ("unpaused", "migrated", "from_snapshot", "postcopy", "postcopy_failed"),
    Lifecycle.STOPPED: ("shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from_snapshot"),
    Lifecycle.SHUTDOWN: ("finished", "guest", "host"),
    Lifecycle.PMSUSPENDED: ("memory", "disk"),
    Lifecycle.CRASHED: ("panicked", "crashloaded"),
}


class Result(StrEnum):
    """How a migration stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"
    """It ended without completion, and nobody told whether it had failed or was cancelled."""
    UNKNOWN = "unknown"
    """Nobody told whether it completed."""


class Kind(StrEnum):
    """The kinds of ``VmEvent`` that are not an event of libvirt's, and those that the rest of the code names."""

    LIFECYCLE = "lifecycle"
    ITERATION = "migration_iteration"
    COMPLETED = "job_completed"
    JOB = "job"
    """A poll of a running job."""
    JOB_GONE = "job_gone"
    """A job that was polled runs no more, and no event told how it ended; ``text`` is the result where something else did."""
    STATE = "state"
    """The state in which a producer found a VM that is or was about to migrate."""
    STATUS = "migration_status"
    """QEMU's own word for how its migration stands (``text``), where listening to it is allowed."""


def job_type_word(number: int) -> str:
    """The word for a job's type, or the number itself where libvirt has a newer one."""
    return JobType(number).name.lower() if number in list(JobType) else str(number)


def operation_word(number: int) -> str:
    """The word for a job's operation, or the number itself where libvirt has a newer one."""
    return Operation(number).name.lower() if number in list(Operation) else str(number)


def lifecycle_word(event: int) -> str:
    """The word for a life-cycle event, or the number itself where libvirt has a newer one."""
    return Lifecycle(event).name.lower() if event in list(Lifecycle) else str(event)


def detail_word(event: int, detail: int) -> str:
    """The word for a life-cycle event's detail, or the number itself where it is unknown."""
    words = LIFECYCLE_DETAILS.get(event, ())
    return words[detail] if 0 <= detail < len(words) else str(detail)
