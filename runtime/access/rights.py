"""Rights: which path needs which, who has which, and the tokens that stand for names. Pure but for reading the file of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from virtflow.runtime.named_files import text_of
from virtflow.schemas.errors import SettingError


class Right(StrEnum):
    """What a request may do."""

    METRICS = "metrics"
    HISTORY = "history"
    WRITE = "write"


OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""For whoever starts and watches the service: they show no VM."""
HISTORY_PREFIX: Final = "/api/v1/"
HISTORY_PAGE: Final = "/vms/{uuid}/history"
"""The page of a VM's long history shows what the API answers below the prefix."""
READING: Final = frozenset({"GET", "HEAD"})
UNNAMED: Final = frozenset({Right.METRICS, Right.HISTORY})
"""What everyone who is let in may do where no rights are set. What changes something has to be given by name."""

_KEY: Final = "web.rights"
_TOKENS_FILE: Final = "web.tokens_file"


def right_for(method: str, path: str) -> Right | None:
    """The right that a request needs; None where everyone may. ``path`` is the route's."""
    if path in OPEN_PATHS:
        return None
    if path.startswith(HISTORY_PREFIX) or path == HISTORY_PAGE:
        return Right.HISTORY
    return Right.METRICS if method in READING else Right.WRITE


class Rights:
    """The setting ``web.rights``."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Raises ``SettingError`` for a right that does not exist."""
        self._named = {name: _parsed(name, words) for name, words in settings.items()}

    @property
    def names(self) -> frozenset[str]:
        """Who is named."""
        return frozenset(self._named)

    def of(self, names: Iterable[str]) -> frozenset[Right]:
        """The rights of one who has these names; none names somebody unknown."""
        if not self._named:
            return UNNAMED
        return frozenset().union(*(self._named.get(name, frozenset()) for name in names))


def _parsed(name: str, words: str) -> frozenset[Right]:
    known = {right.value for right in Right}
    wrong = [word for word in words.split() if word not in known]
    if wrong or not words.split():
        why = f"there is no right {wrong[0]!r}" if wrong else "no right is given"
        fix = f"write {', '.join(sorted(known))}, separated by spaces"
        raise SettingError(origin="settings", key=f"{_KEY}.{name}", value=words, why=why, fix=fix)
    return frozenset(Right(word) for word in words.split())


def token_digest(token: bytes) -> bytes:
    """What a token is looked up by: the lookup's time tells nothing about it."""
    return hashlib.sha256(token).digest()


def read_tokens(path: Path) -> dict[bytes, str]:
    """Names by the digests of their tokens; raises ``SettingError`` where the file can't be used."""
    lines = text_of(path, _TOKENS_FILE).splitlines()
    found: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        token, _, name = line.strip().partition(" ")
        if not token or token.startswith("#"):
            continue
        digest = token_digest(token.encode())
        if not name.strip() or digest in found:
            raise _unusable(path, f"line {number} is not a token of its own and a name", "write lines TOKEN NAME")
        found[digest] = name.strip()
    if not found:
        raise _unusable(path, "no token in it", "write lines TOKEN NAME")
    return found


def _unusable(path: Path, why: str, fix: str) -> SettingError:
    return SettingError(origin="settings", key=_TOKENS_FILE, value=str(path), why=why, fix=fix)
