"""The text of series: labels escaped, values in their shortest form, rendered only where a value changed.

Format: Prometheus' text exposition 0.0.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import repeat
from operator import attrgetter
from typing import Any, Final

import msgspec

from virtflow.schemas.catalogue.types import Metric

Lines = tuple[str, ...]
"""One string per family, in the order of the families they were rendered for."""

LABEL_BYTES: Final = 1_024
"""Maximum length of a label's value in bytes of UTF-8: enough for the 256 characters that a name or title has at most."""

# A NUL ends Prometheus' lexer, a lone surrogate has no UTF-8: both become the replacement character.
_UNSAFE: Final = re.compile('[\\\\"\n\0\ud800-\udfff]')
_NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")
_CHARACTER_BYTES: Final = 4
_MARK: Final = "\N{HORIZONTAL ELLIPSIS}"
_DIGEST_BYTES: Final = 4
_MARK_BYTES: Final = len(_MARK.encode()) + 2 * _DIGEST_BYTES
END: Final = "} "
"""What stands between the labels of a series and its value."""
_ENCODE: Final = msgspec.json.Encoder().encode
LEAST, NULL, _MINUS_ZERO = "0", "null", "-0.0"
"""The texts of numbers from 0 on sort between ``LEAST`` and ``NULL``, those of negative numbers and NaN do not: they are absent."""

_REPLACED: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


@lru_cache(maxsize=65_536)
def quoted(value: str, limit: int = LABEL_BYTES) -> str:
    """The text of a label value between its quotes: escaped, valid UTF-8, at most ``limit`` bytes once it is unescaped."""
    if len(value) * _CHARACTER_BYTES > limit:
        value = _cut(value, limit)
    return _UNSAFE.sub(lambda found: _REPLACED.get(found[0], "\ufffd"), value)


def _cut(value: str, limit: int) -> str:
    """The start of the value, a mark, and a hash of the whole value: long values with the same start stay different."""
    raw = _NO_TEXT.sub("\ufffd", value).encode()
    if len(raw) <= limit:
        return value
    digest = blake2b(raw, digest_size=_DIGEST_BYTES, usedforsecurity=False).hexdigest()
    return f"{raw[: limit - _MARK_BYTES].decode(errors='ignore')}{_MARK}{digest}"


def label_text(pairs: Iterable[tuple[str, str]], limit: int = LABEL_BYTES) -> str:
    """``name="value",...`` without braces; each value has at most ``limit`` bytes."""
    return ",".join([f'{name}="{quoted(value, limit)}"' for name, value in pairs])


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kind of record is rendered: the families' places among the lines; for each value its family, the text around its labels.

    Values of one family (``variant``) share its place, with their lines one after another.
    """

    at: tuple[int, ...]
    families: tuple[int, ...]
    fields: tuple[str, ...]
    prefixes: tuple[str, ...]
    endings: tuple[str, ...]
    values: Callable[[Any], tuple[float, ...]]

    @classmethod
    def of(cls, metrics: Iterable[Metric], at: Mapping[str, int]) -> Plan:
        """The plan for those of the metrics that are among the families ``at`` their places."""
        rows = [metric for metric in metrics if metric.name in at]
        places = list(dict.fromkeys(at[metric.name] for metric in rows))
        return cls(
            tuple(places),
            tuple(places.index(at[metric.name]) for metric in rows),
            tuple(metric.field for metric in rows),
            tuple(f"{metric.name}{{" for metric in rows),
            tuple(f",{label_text([metric.variant])}{END}" if metric.variant else END for metric in rows),
            _getter([metric.field for metric in rows]),
        )

    def render(self, lines: list[str], labels: str, values: tuple[float, ...], before: tuple[float, ...] | None) -> None:
        """Renders the families of one record whose value changed; each is one series. ``labels`` has no braces."""
        if values == before:
            return
        old: Iterable[float | None] = repeat(None) if before is None else before
        for at, prefix, value, text, was in zip(self.at, self.prefixes, values, number_texts(values), old, strict=False):
            if value != was:
                lines[at] = f"{prefix}{labels}{END}{text}\n" if LEAST <= text < NULL else ""

    def render_each(self, lines: list[str], labelled: Mapping[str, Any]) -> None:
        """Renders all families again, from one record for each text of labels; the labels have no braces."""
        new = [""] * len(self.at)
        for labels, record in labelled.items():
            texts = number_texts(self.values(record))
            for family, prefix, ending, text in zip(self.families, self.prefixes, self.endings, texts, strict=False):
                if LEAST <= text < NULL:
                    new[family] += f"{prefix}{labels}{ending}{text}\n"
        for at, line in zip(self.at, new, strict=True):
            if line != lines[at]:
                lines[at] = line


def _getter(fields: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that returns the fields as a tuple, also for one field or none."""
    if len(fields) > 1:
        return attrgetter(*fields)
    return lambda record: tuple(getattr(record, field) for field in fields)


def number_texts(values: Sequence[float]) -> list[str]:
    """The values as text in the shortest exact form; ``null`` for NaN and infinity. One call for all costs a tenth of ``repr`` each."""
    texts = _ENCODE(values)[1:-1].decode("ascii").split(",")
    return [_MINUS_ZERO[1:] if text == _MINUS_ZERO else text for text in texts] if _MINUS_ZERO in texts else texts
