"""Findings of ``virtflow check``: one line for each thing that was checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from virtflow.schemas.errors import EnvironmentProblemError, SettingError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: ``thing`` and ``value`` name it, ``detail`` is the result, ``fix`` how to repair it if not ``ok``.

    A ``warning`` is ``ok``, since the service will run, and has a ``fix``.
    """

    ok: bool
    thing: str
    value: str
    detail: str
    fix: str = ""
    warning: bool = False


def good(thing: str, value: str, detail: str) -> Finding:
    """A check that passed."""
    return Finding(ok=True, thing=thing, value=value, detail=detail)


def bad(thing: str, value: str, detail: str, fix: str) -> Finding:
    """A check that failed, and what to do about it."""
    return Finding(ok=False, thing=thing, value=value, detail=detail, fix=fix)


def warn(thing: str, value: str, detail: str, fix: str) -> Finding:
    """What will work, and may not be meant."""
    return Finding(ok=True, thing=thing, value=value, detail=detail, fix=fix, warning=True)


def of_setting(error: SettingError) -> Finding:
    """A setting that is invalid: the value names origin and key."""
    return bad("setting", f"{error.key} = {error.value!r}", f"{error.why} ({error.origin})", error.fix)


def of_problem(error: EnvironmentProblemError) -> Finding:
    """Something in the environment that is missing."""
    return bad(error.thing, error.value, error.why, error.fix)


def require(found: Iterable[Finding], advice: str = "") -> None:
    """Raises ``EnvironmentProblemError`` for the first thing that is wrong; ``advice`` is what may be done besides."""
    for finding in found:
        if not finding.ok:
            raise EnvironmentProblemError(thing=finding.thing, value=finding.value, why=finding.detail, fix=finding.fix + advice)
