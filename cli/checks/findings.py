"""What ``virtflow check`` has found: one line for each thing it looked at."""

from __future__ import annotations

from dataclasses import dataclass

from virtflow.schemas.errors import EnvironmentProblemError, SettingError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: ``thing`` and ``value`` name it, ``detail`` says what was found, ``fix`` how to mend it if not ``ok``."""

    ok: bool
    thing: str
    value: str
    detail: str
    fix: str = ""


def good(thing: str, value: str, detail: str) -> Finding:
    """A thing that is as a service needs it."""
    return Finding(ok=True, thing=thing, value=value, detail=detail)


def bad(thing: str, value: str, detail: str, fix: str) -> Finding:
    """A thing that is wrong, and what to do about it."""
    return Finding(ok=False, thing=thing, value=value, detail=detail, fix=fix)


def of_setting(error: SettingError) -> Finding:
    """A setting that can't be used: the value names origin and key."""
    return bad("setting", f"{error.key} = {error.value!r}", f"{error.why} ({error.origin})", error.fix)


def of_problem(error: EnvironmentProblemError) -> Finding:
    """Something outside that is not there."""
    return bad(error.thing, error.value, error.why, error.fix)
