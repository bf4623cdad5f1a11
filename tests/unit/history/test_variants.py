"""A metric whose values a label tells apart has a column for each, and is read back under its one name with the label."""

from __future__ import annotations

import pytest

from virtflow.history.remote_read.reading.labels import labels_of
from virtflow.history.storage.table_schemas import COLUMN_OF, SAMPLES
from virtflow.runtime.settings import Settings

NAME = "vm_cpu_haltpoll_seconds_total"


@pytest.mark.parametrize("result", ["success", "fail"])
def test_a_column_is_a_series_of_the_family(result: str) -> None:
    column = f"vm_cpu_haltpoll_{result}_seconds_total"
    assert column in SAMPLES.schema.names
    assert NAME not in COLUMN_OF
    labels = dict(labels_of(Settings(), column, ("uuid-1", "", "web"), ()))
    assert labels == {"__name__": NAME, "uuid": "uuid-1", "name": "web", "result": result}
