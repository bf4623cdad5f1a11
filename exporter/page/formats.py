"""Values as people read them. ``static/formats.js`` does the same; a test compares the two.

None is a dash. Numbers have three digits, sizes are in powers of 1024.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import floor
from typing import Final

ABSENT: Final = "\N{EN DASH}"
SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
COUNTS: Final = ("", "k", "M", "G")
YEAR_10000: Final = 253_402_300_800.0
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def digits(value: float) -> str:
    """Three digits; halves are rounded up."""
    for limit, places in ((9.995, 2), (99.95, 1)):
        if value < limit:
            scale = 10**places
            return f"{floor(value * scale + 0.5) / scale:.{places}f}".rstrip("0").rstrip(".")
    return str(floor(value + 0.5))


def _stepped(value: float, step: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if value < step - 0.5:
            return f"{digits(value)} {unit}".rstrip()
        value /= step
    return f"{digits(value)} {units[-1]}"


def size(value: float) -> str:
    """Bytes: ``1.5 GiB``."""
    return _stepped(value, 1024, SIZES)


def rate(value: float) -> str:
    """Bytes per second: ``1.5 MiB/s``."""
    return f"{size(value)}/s"


def per_second(value: float) -> str:
    """Anything else per second: ``1.5 k/s``."""
    return f"{_stepped(value, 1000, COUNTS)}/s"


def percent(value: float) -> str:
    """A ratio: ``12.5 %``."""
    return f"{digits(value * 100)} %"


def cores(value: float) -> str:
    """CPU cores: ``1.25``."""
    return digits(value)


def latency(value: float) -> str:
    """Seconds of something short: ``850 µs``, ``1.25 ms``, ``2.5 s``."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if value * factor < 999.5:  # noqa: PLR2004, what rounds to a thousand is one of the next unit
            return f"{digits(value * factor)} {unit}"
    return f"{digits(value)} s"


def duration(value: float) -> str:
    """Seconds of something long, in its two largest units: ``3.2 s``, ``1 min 5 s``, ``2 h 3 min``."""
    if value < _MINUTE:
        return f"{digits(value)} s"
    whole = floor(value)
    for unit, name, smaller, smaller_name in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {smaller_name}"
    return f"{whole // _MINUTE} min {whole % _MINUTE} s"


def count(value: float) -> str:
    """A number of things, its digits in groups of three: ``12,345``."""
    return f"{floor(value):,}"


def clock(value: float) -> str:
    """Unix seconds as date and time in UTC; a dash for what no calendar has, as a broken clock may tell it."""
    if not 0 <= value < YEAR_10000:
        return ABSENT
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(value))


FORMATS: Final[dict[str, Callable[[float], str]]] = {
    "size": size,
    "rate": rate,
    "per_second": per_second,
    "percent": percent,
    "cores": cores,
    "latency": latency,
    "duration": duration,
    "count": count,
    "clock": clock,
}
"""By the names that tables use."""


def shown(name: str, value: float | str | bool | None) -> str:  # noqa: FBT001, a value of JSON
    """A value by the format of that name; text as it is, None and "" as a dash."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value.replace("_", " ") if name == "word" else value
    return FORMATS[name](value) if name in FORMATS else str(value)
