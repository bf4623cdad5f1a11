"""Kubernetes label selectors: from their text to a decision about labels. Pure.

Source: the grammar of apimachinery's ``labels.Parse`` - requirements joined by commas: ``a``, ``!a``, ``a=b``, ``a==b``, ``a!=b``,
``a in (b,c)``, ``a notin (b,c)``, ``a>1``, ``a<1``. An empty selector selects everything; a label that is missing meets ``!=`` and ``notin``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from virtflow.schemas.errors import InputError

_TOKEN: Final = re.compile(r"\s*(?:(?P<sign>==|!=|[=!(),<>])|(?P<word>[^\s=!(),<>]+))")
_NAME: Final = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY: Final = re.compile(rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}")
_VALUE: Final = re.compile(rf"({_NAME})?")
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")

END: Final = ""
"""The token behind the last one."""


class SelectorError(InputError):
    """A text that is no selector, and why."""


class Requirement(Struct, frozen=True):
    """One requirement: ``holds`` decides by the label's value, None where it is missing."""

    key: str
    holds: Callable[[str | None], bool]


class Selector(Struct, frozen=True):
    """All requirements of a text, and the text itself."""

    text: str = ""
    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet every requirement."""
        return all(one.holds(labels.get(one.key)) for one in self.requirements)


EVERYTHING: Final = Selector()


def selector_of(text: str) -> Selector:
    """The selector that a text says; raises ``SelectorError``."""
    tokens = list(_tokens(text))
    if not tokens:
        return Selector(text)
    reader = _Reader(text, tokens)
    found = [reader.requirement()]
    while reader.next() != END:
        reader.expect(",")
        found.append(reader.requirement())
    return Selector(text, tuple(found))


def _tokens(text: str) -> Iterator[str]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        assert found is not None  # every character but white space is a sign or part of a word
        yield found["sign"] or found["word"]
        at = found.end()


class _Reader:
    """Reads requirements from tokens."""

    def __init__(self, text: str, tokens: list[str]) -> None:
        self._text = text
        self._left = tokens[::-1]

    def next(self) -> str:
        """The next token, which stays; ``END`` behind the last one."""
        return self._left[-1] if self._left else END

    def take(self) -> str:
        """The next token."""
        return self._left.pop() if self._left else END

    def expect(self, sign: str) -> None:
        """Takes a token that must be there."""
        if self.next() != sign:
            raise self.error(f"{sign!r} is missing before {self.next()!r}")
        self.take()

    def error(self, why: str) -> SelectorError:
        """The error for this text."""
        return SelectorError(f"unable to parse the selector {self._text[:200]!r}: {why}")

    def requirement(self) -> Requirement:
        """One requirement."""
        if self.next() == "!":
            self.take()
            return Requirement(self._key(), lambda value: value is None)
        key = self._key()
        match self.next():
            case "" | ",":
                return Requirement(key, lambda value: value is not None)
            case "=" | "==":
                self.take()
                wanted = self._exact()
                return Requirement(key, lambda value: value == wanted)
            case "!=":
                self.take()
                refused = self._exact()
                return Requirement(key, lambda value: value != refused)
            case "in" | "notin" | ">" | "<" as operator:
                self.take()
                return self._set(key) if operator == "in" else self._other(key, operator)
            case other:
                raise self.error(f"{other!r} is no operator")

    def _set(self, key: str) -> Requirement:
        values = self._values()
        return Requirement(key, lambda value: value in values)

    def _other(self, key: str, operator: str) -> Requirement:
        if operator == "notin":
            values = self._values()
            return Requirement(key, lambda value: value not in values)
        text = self.take()
        if not _WHOLE.fullmatch(text):
            raise self.error(f"{text!r} is no whole number")
        limit = int(text)
        above = operator == ">"
        return Requirement(key, lambda value: _beyond(value, limit, above=above))

    def _key(self) -> str:
        key = self.take()
        if not _KEY.fullmatch(key):
            raise self.error(f"{key!r} is no label")
        return key

    def _exact(self) -> str:
        """The value behind an equality sign, which may be empty."""
        return "" if self.next() in {END, ","} else self._value(self.take())

    def _values(self) -> frozenset[str | None]:
        """The values of a set, in brackets; an empty one among them is the empty value, but there must be one."""
        self.expect("(")
        if self.next() == ")":
            raise self.error("a set of values is empty")
        values: set[str | None] = set()
        while True:
            values.add("" if self.next() in {",", ")"} else self._value(self.take()))
            if self.next() != ",":
                self.expect(")")
                return frozenset(values)
            self.take()

    def _value(self, text: str) -> str:
        if not _VALUE.fullmatch(text):
            raise self.error(f"{text!r} is no value of a label")
        return text


def _beyond(value: str | None, limit: int, *, above: bool) -> bool:
    if value is None or not _WHOLE.fullmatch(value):
        return False
    return int(value) > limit if above else int(value) < limit
