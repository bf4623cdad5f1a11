"""Chunks hold what was put in, whatever it was."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chunk_reader import decode
from virtflow.history.remote_read.protocol.xor_chunks import chunks, encode

CHUNK_SAMPLES = 480

STEPS = st.one_of(st.just(10_000), st.integers(1, 2**31), st.sampled_from([1, 8_192, 8_193, 65_536, 65_537, 524_288, 524_289, 2**40]))
VALUES = st.one_of(st.floats(width=64), st.integers(0, 2**53).map(float), st.sampled_from([0.0, -0.0, 1.0]))


@given(st.integers(-(2**40), 2**41), st.lists(st.tuples(STEPS, VALUES), min_size=1, max_size=60))
def test_a_chunk_holds_its_samples(start: int, steps: list[tuple[int, float]]) -> None:
    times = start + np.cumsum([step for step, _ in steps])
    values = np.array([value for _, value in steps])
    read = decode(encode(times, values))
    assert [at for at, _ in read] == times.tolist()
    assert [struct.pack(">d", value) for _, value in read] == [struct.pack(">d", value) for value in values]


def test_a_series_is_cut_into_chunks() -> None:
    times = np.arange(3 * CHUNK_SAMPLES + 1) * 1000
    found = list(chunks(times, times.astype(float)))
    assert [first for first, _, _ in found] == [0, *(n * CHUNK_SAMPLES * 1000 for n in (1, 2, 3))]
    assert [at for _, _, data in found for at, _ in decode(data)] == times.tolist()
