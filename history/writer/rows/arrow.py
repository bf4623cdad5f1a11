"""Numbers as Arrow arrays the way the tables have them: absent is null, never 0."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

from virtflow.history.storage.table_schemas import SECONDS, TIME
from virtflow.schemas.ranges import LATEST_SECONDS

Numbers = np.ndarray[Any, np.dtype[Any]]

MICROSECONDS: Final = 1e6
LONGEST_SECONDS: Final = 1e12
DAY_SECONDS: Final = 86_400


def array_of(numbers: Numbers, kind: pa.DataType) -> pa.Array:
    """Numbers as a column of that type: what is negative or no finite number stands for absent."""
    if kind == SECONDS:
        return decimals(numbers)
    return pa.array(numbers, kind, mask=~np.isfinite(numbers) if pa.types.is_floating(kind) else numbers < 0)


def decimals(seconds: Numbers) -> pa.Array:
    """Seconds to the microsecond; null for NaN and for what is beyond any counter. No value is negative."""
    with np.errstate(invalid="ignore"):
        there = (seconds >= 0) & (seconds < LONGEST_SECONDS)
    halves = np.zeros((len(seconds), 2), np.int64)
    halves[:, 0] = np.rint(np.where(there, seconds, 0.0) * MICROSECONDS).astype(np.int64)
    return pa.Array.from_buffers(SECONDS, len(seconds), [pa.array(there).buffers()[1], pa.py_buffer(halves)])


def times(seconds: Numbers) -> pa.Array:
    """Unix seconds as moments; null for what is none."""
    with np.errstate(invalid="ignore"):
        there = (seconds >= 0) & (seconds <= LATEST_SECONDS)
    micros = np.rint(np.where(there, seconds, 0.0) * MICROSECONDS).astype(np.int64)
    return pa.array(micros, pa.int64(), mask=~there).cast(TIME)


def days(seconds: Numbers) -> pa.Array:
    """The days of Unix seconds."""
    return pa.array(np.floor(seconds / DAY_SECONDS).astype(np.int32), pa.int32()).cast(pa.date32())
