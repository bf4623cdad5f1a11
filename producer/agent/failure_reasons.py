"""Maps libvirt's errors to failure reasons. Pure.

Source of the numbers: libvirt's ``virErrorNumber``. Its words are the daemon's and may be in any language, and what follows them is the
guest's own: so they are looked at only where the number leaves it open.
"""

from __future__ import annotations

import re
from typing import Final

from virtflow.schemas.guest import GuestReason

EARLY: Final = 0.8
"""Of the time libvirt waits for an agent: an error that comes sooner did not wait."""

_INTERNAL_ERROR, _NO_SUPPORT, _INVALID_ARG, _NO_DOMAIN, _OPERATION_INVALID, _OPERATION_TIMEOUT = 1, 3, 8, 42, 55, 68
_ARGUMENT_UNSUPPORTED, _OPERATION_UNSUPPORTED, _AGENT_UNRESPONSIVE, _AGENT_UNSYNCED = 74, 84, 86, 97
_AGENT_COMMAND_TIMEOUT, _AGENT_COMMAND_FAILED = 112, 113

_BY_NUMBER: Final = {
    _NO_SUPPORT: GuestReason.BLOCKED,
    _INVALID_ARG: GuestReason.BLOCKED,
    _ARGUMENT_UNSUPPORTED: GuestReason.BLOCKED,
    _OPERATION_UNSUPPORTED: GuestReason.BLOCKED,
    _NO_DOMAIN: GuestReason.NOT_RUNNING,
    _OPERATION_INVALID: GuestReason.NOT_RUNNING,
    _OPERATION_TIMEOUT: GuestReason.BUSY,
    _AGENT_UNSYNCED: GuestReason.MALFORMED,
    _AGENT_COMMAND_TIMEOUT: GuestReason.TIMEOUT,
}
_UNKNOWN_COMMAND: Final = re.compile(
    r"has been disabled|has not been found|not found|not supported|unsupported|CommandNotFound", re.IGNORECASE
)


def reason_of(number: int, text: str, seconds: float, timeout: float) -> GuestReason:
    """Reason of a call that failed after ``seconds`` with libvirt's error ``number`` and message ``text``."""
    if number == _AGENT_UNRESPONSIVE:
        return GuestReason.TIMEOUT if seconds >= EARLY * timeout else GuestReason.DISCONNECTED
    if number in {_INTERNAL_ERROR, _AGENT_COMMAND_FAILED}:
        return GuestReason.BLOCKED if _UNKNOWN_COMMAND.search(text) else GuestReason.MALFORMED
    return _BY_NUMBER.get(number, GuestReason.FAILED)


def reason_of_nothing(seconds: float, timeout: float) -> GuestReason:
    """Reason of a call that returned after ``seconds`` without an error and without data."""
    return GuestReason.TIMEOUT if seconds >= EARLY * timeout else GuestReason.MALFORMED
