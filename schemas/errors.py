"""The two error roots: the input's fault and ours.

An ``InputError`` is counted, reported and never fatal to data of others; everything else is a defect and crashes loudly.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

VALUE_LENGTH: Final = 500
"""Characters of a setting's value that a message repeats."""


class InputError(Exception):
    """Something that came from outside is wrong: a message, guest data, a setting, an environment."""


class Reason(StrEnum):
    """Why a message could not be decoded; the ``reason`` header of a dead letter."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    UNKNOWN_MAGIC = "unknown_magic"
    UNKNOWN_SCHEMA = "unknown_schema"
    WRONG_RECORD = "wrong_record"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"
    MALFORMED = "malformed"
    OUT_OF_RANGE = "out_of_range"


class UndecodableError(InputError):
    """A message that is not a record of ours, and why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        """``detail`` says in words what was found; it never holds the message's bytes."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RegistryUnavailableError(InputError):
    """The schema registry gave no answer. What was asked is not known yet; it is no proof that it is unknown."""


def _short(value: object) -> str:
    """A value in a message: as Python writes it, up to ``VALUE_LENGTH`` characters."""
    text = repr(value)
    return text if len(text) <= VALUE_LENGTH else text[:VALUE_LENGTH] + "…"


class SettingError(InputError):
    """A setting that can't be used: says where it came from, its key, its value, what is wrong and how to fix it."""

    def __init__(self, *, origin: str, key: str, value: object, why: str, fix: str) -> None:
        """``origin`` is the file, environment variable or switch that held the value."""
        super().__init__(f"{origin}: {key} = {_short(value)}: {why}; {fix}")
        self.origin = origin
        self.key = key
        self.value = value
        self.why = why
        self.fix = fix


class StopForGoodError(InputError):
    """A service has ended because going on would do harm, and a restart would do the same again: a person has to look first."""


class EnvironmentProblemError(InputError):
    """Something outside that a service needs is not there: names the thing, its value and the fix."""

    def __init__(self, *, thing: str, value: str, why: str, fix: str) -> None:
        """For example thing ``port``, value ``127.0.0.1:9177``, why ``already in use``, fix ``choose --listen``."""
        super().__init__(f"{thing} {value}: {why}; {fix}")
        self.thing = thing
        self.value = value
        self.why = why
        self.fix = fix
