"""Words for libvirt's numbers: domain states and their reasons. An unknown number passes through as itself.

Source: libvirt's ``virDomainState`` and the ``virDomain*Reason`` enumerations.
"""

from __future__ import annotations

NO_STATE, RUNNING, BLOCKED, PAUSED, SHUTTING_DOWN, SHUT_OFF, CRASHED, SUSPENDED = range(8)
PAUSED_MIGRATION, PAUSED_STARTING_UP, PAUSED_POSTCOPY = 2, 11, 12
RUNNING_MIGRATED = 2
SHUT_OFF_UNKNOWN, SHUT_OFF_CRASHED, SHUT_OFF_MIGRATED, SHUT_OFF_FAILED = 0, 3, 4, 6

STATES = ("no_state", "running", "blocked", "paused", "shutting_down", "shut_off", "crashed", "suspended")

REASONS: dict[int, tuple[str, ...]] = {
    NO_STATE: ("unknown",),
    RUNNING: (
        "unknown",
        "booted",
        "migrated",
        "restored",
        "from_snapshot",
        "unpaused",
        "migration_canceled",
        "save_canceled",
        "wakeup",
        "crashed",
        "postcopy",
        "postcopy_failed",
    ),
    BLOCKED: ("unknown",),
    PAUSED: (
        "unknown",
        "user",
        "migration",
        "save",
        "dump",
        "io_error",
        "watchdog",
        "from_snapshot",
        "shutting_down",
        "snapshot",
        "crashed",
        "starting_up",
        "postcopy",
        "postcopy_failed",
        "api_error",
    ),
    SHUTTING_DOWN: ("unknown", "user"),
    SHUT_OFF: ("unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from_snapshot", "daemon"),
    CRASHED: ("unknown", "panicked"),
    SUSPENDED: ("unknown",),
}


def state_word(state: int) -> str:
    """The word for a domain state, or the number itself where libvirt has a newer one."""
    return STATES[state] if 0 <= state < len(STATES) else str(state)


def reason_word(state: int, reason: int) -> str:
    """The word for the reason of a domain state, or the number itself where it is unknown."""
    words = REASONS.get(state, ())
    return words[reason] if 0 <= reason < len(words) else str(reason)
