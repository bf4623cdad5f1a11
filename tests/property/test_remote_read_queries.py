"""Any remote_read query is answered or refused with a reason, whatever its numbers and patterns."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.history import fleet_samples
from tests.support.history_years import DAY, hours_of_vm, write_years
from virtflow.history.remote_read.protocol.wire import Asked, Hints, Match, Matcher
from virtflow.history.remote_read.reading.reader import Reader
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History, Settings
from virtflow.schemas.errors import InputError

NOW = int(time.time()) // DAY * DAY
FIRST, LAST = -(2**63), 2**63 - 1
EDGES = (FIRST, FIRST + 62_135_596_801_000, -1, 0, 1, 253_402_300_800_000, 9_223_372_036_854_775, LAST - 62_135_596_801_000, LAST)
"""Prometheus' own smallest and greatest times among them."""
NEAR = st.integers((NOW - 2 * DAY) * 1000, (NOW + DAY) * 1000)
WHOLE = st.sampled_from(EDGES) | NEAR | st.integers(FIRST, LAST)
LENGTH = st.sampled_from((0, 60_000, 3_600_000)) | WHOLE
NAMES = st.sampled_from(("vm_memory_rss_bytes", "vm_info", "vm_state_info", "vm_block_read_bytes_total"))
MATCHERS = st.lists(
    st.builds(Matcher, st.sampled_from(Match), st.sampled_from(("name", "uuid", "device", "state", "")), st.text(max_size=6)), max_size=2
)
ASKED = st.builds(
    lambda name, start, end, more, hints: Asked(start, end, (Matcher(Match.EQUAL, "__name__", name), *more), hints),
    NAMES,
    WHOLE,
    WHOLE,
    MATCHERS,
    st.none() | st.builds(Hints, LENGTH, st.sampled_from(("", "rate", "max_over_time")), WHOLE, WHOLE, LENGTH),
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A day of roll-ups of one VM, and some samples of two."""
    path = tmp_path_factory.mktemp("queries") / "history"
    store = write_years(path, {1: hours_of_vm(1, NOW - 2 * DAY, NOW - DAY)})
    writer = TableWriter(store.open(SAMPLES), Sequences())
    writer.begin(["raw"])
    for offset, sample in enumerate(fleet_samples(1, 2, range(5), start=float(NOW - 600))):
        writer.take("raw", offset, sample)
    writer.commit()
    own = History(path=str(path), serve_samples=100_000)
    return Reader(Store(own), Settings(history=own))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(asked=ASKED)
@example(asked=Asked(FIRST, FIRST + 1, (Matcher(Match.EQUAL, "__name__", "vm_state"),)))
@example(asked=Asked(LAST - 1, LAST, (Matcher(Match.EQUAL, "__name__", "vm_state"),)))
@example(asked=Asked(0, LAST, (Matcher(Match.EQUAL, "__name__", "vm_state"),), Hints(LAST, "", LAST - 1, LAST, LAST)))
@example(asked=Asked(NOW * 1000, NOW * 1000 + 1, (Matcher(Match.EQUAL, "__name__", "vm_state"),), Hints(FIRST, "", 0, LAST, FIRST)))
def test_any_query_is_answered_or_refused(reader: Reader, asked: Asked) -> None:
    try:
        found = reader.read(asked)
    except InputError:
        return
    for series in found:
        assert np.all(np.diff(series.times) > 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(label=st.sampled_from(("name", "device", "uuid", "mountpoint", "no label")), start=st.floats(), end=st.floats())
def test_any_time_of_a_label_s_values(reader: Reader, label: str, start: float, end: float) -> None:
    assert reader.values(label, start, end) == sorted(reader.values(label, start, end))
