"""Data skipping: a table's files that may hold rows of some time and kind, by the bounds that the log has of each file.

The other files cost nothing: a dataset of all of them makes a condition of each one's bounds first, which takes longer than to read a few.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from virtflow.history.storage.table_schemas import TIME

_MICROSECONDS: Final = 1_000_000


def may_hold(actions: pa.Table, start: float, end: float, kind: str) -> pa.Table:
    """The add actions (flattened) of files that may have rows of a kind from ``start`` up to ``end`` (Unix seconds, whole ones count).

    A file without bounds may have any.
    """
    first, last = (pa.scalar(int(at) * _MICROSECONDS).cast(TIME) for at in (start, end))
    conditions = (
        ("max.time", pc.greater_equal, first),
        ("min.time", pc.less, last),
        ("min.kind", pc.less_equal, pa.scalar(kind)),
        ("max.kind", pc.greater_equal, pa.scalar(kind)),
    )
    for name, compare, bound in conditions:
        if name in actions.schema.names:
            holds = compare(actions.column(name).cast(bound.type), bound)
            actions = actions.filter(pc.fill_null(holds, fill_value=True))
    return actions


def dataset_of(actions: pa.Table, schema: pa.Schema, files: fs.FileSystem) -> Any:  # noqa: ANN401, pyarrow is untyped
    """The rows of files as an Arrow dataset; the day comes from the log."""
    form = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))
    days = actions.column("partition.day").cast(pa.date32()) if actions.num_rows else ()
    fragments = [
        form.make_fragment(path.as_py(), filesystem=files, partition_expression=pc.field("day") == day)
        for path, day in zip(actions.column("path") if actions.num_rows else (), days, strict=True)
    ]
    return ds.FileSystemDataset(fragments, schema, form, files)
