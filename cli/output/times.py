"""Moments that Python's calendar does not have, as text: infinite ones, and years before 1 or after 9999."""

from __future__ import annotations

from typing import Any, Final

DAYS: Final = (-719_162, 2_932_896)
"""The first and the last day that Python knows, counted from 1970."""
DAY_SECONDS: Final = 86_400
PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def shown_times(rows: Any) -> Any:  # noqa: ANN401, an Arrow table
    """The table, in which columns with such moments are text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, field in enumerate(rows.schema):
        days = pa.types.is_date32(field.type)
        if not (days or pa.types.is_timestamp(field.type)):
            continue
        unit = "D" if days else field.type.unit
        scale = 1 if days else DAY_SECONDS * PER_SECOND[unit]
        column = rows.column(index)
        numbers = column.cast(pa.int32() if days else pa.int64()).cast(pa.int64())
        bounds = pc.min_max(numbers).as_py()
        if bounds["min"] is None or (DAYS[0] * scale <= bounds["min"] and bounds["max"] < (DAYS[1] + 1) * scale):
            continue
        ends = (2**31 - 1) if days else (2**63 - 1)
        zone = "Z" if not days and field.type.tz else ""
        text = pa.chunked_array([pa.array([_text(number, unit, ends, zone) for number in numbers.to_pylist()], pa.string())])
        rows = rows.set_column(index, field.name, text)
    return rows


def _text(number: int | None, unit: str, end: int, zone: str) -> str | None:
    """ISO 8601, with as many digits of the year as it takes; ``end`` is the number that stands for infinity."""
    import numpy as np

    if number is None:
        return None
    if abs(number) >= end:
        return "infinity" if number > 0 else "-infinity"
    moment: Any = np.datetime64
    return f"{moment(number, unit)}{zone}"
