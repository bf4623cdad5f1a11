"""Portions of a day's rows, by kind and UUID: only the row groups that can have them are read, and words come as dictionaries.

The footers say which row groups those are, and are read once for all portions. A word that is read as a dictionary is hashed, copied and
sorted as a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from virtflow.history.storage.delta import File, Opened
from virtflow.history.storage.parquet import ROW_GROUP_ROWS

FOOTERS: Final = 512
"""Of no more files the footers are kept in memory: each takes some 100 kB."""
SPREAD: Final = 4
"""So many times as many rows as are wanted may be looked at for them."""
_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_BOUNDED: Final = ("kind", "uuid")

Numbers = np.ndarray[Any, np.dtype[Any]]


def with_uuid(low: str, high: str) -> Any:  # noqa: ANN401, an Arrow expression
    """Rows whose UUIDs lie from ``low`` up to ``high`` ("" for no end)."""
    uuid = pc.field("uuid")
    return (uuid >= low) & (uuid < high) if high else uuid >= low


class Portion(NamedTuple):
    """Rows of one kind whose UUIDs lie from ``low`` up to ``high`` ("" for no end)."""

    kind: str
    low: str
    high: str

    @property
    def condition(self) -> Any:  # noqa: ANN401, an Arrow expression
        """The condition that its rows meet."""
        return with_uuid(self.low, self.high) & (pc.field("kind") == self.kind)


class _Group(NamedTuple):
    """A row group: its file's place, its number, and the bounds of kind and UUID; "" and None where the footer has none."""

    file: int
    number: int
    least: tuple[str, str]
    most: tuple[str, str] | None

    def may_hold(self, portion: Portion) -> bool:
        """Whether any of its rows may be in the portion."""
        if self.most is None:
            return True
        of_kind = self.least[0] <= portion.kind <= self.most[0]
        return of_kind and portion.low <= self.most[1] and not (portion.high and self.least[1] >= portion.high)

    def is_within(self, portion: Portion) -> bool:
        """Whether all of its rows are in the portion."""
        if self.most is None:
            return False
        of_kind = self.least[0] == self.most[0] == portion.kind
        return of_kind and portion.low <= self.least[1] and not (portion.high and self.most[1] >= portion.high)


class Portions:
    """The rows of some files of a table that has kinds."""

    def __init__(self, opened: Opened, files: Sequence[File]) -> None:
        """Reads the files' footers."""
        self._files = [file.path for file in files]
        self._storage = opened.files_of_storage
        self._schema = pa.schema([field.with_type(_WORD) if pa.types.is_string(field.type) else field for field in opened.table.schema])
        words = [field.name for field in opened.table.schema if pa.types.is_string(field.type)]
        self._form = ds.ParquetFileFormat(
            read_options=ds.ParquetReadOptions(dictionary_columns=words),
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True),
        )
        self._kept: dict[int, Any] = {}
        self.columns: Final[set[str]] = set()
        """The columns that any of the files has."""
        self._groups = [group for place in range(len(files)) for group in self._groups_of(place)]

    def read(self, portion: Portion, names: Sequence[str]) -> pa.Table:
        """A portion's rows, in no order. Each column of words has one dictionary, with words of no row of the portion, too."""
        columns = [name for name in names if name != "day"]
        found = [group for group in self._groups if group.may_hold(portion)]
        whole = [group for group in found if group.is_within(portion)]
        mixed = [group for group in found if not group.is_within(portion)]
        parts = [self._rows(whole, columns, None), self._rows(mixed, columns, portion.condition)]
        return pa.concat_tables([part for part in parts if part.num_rows] or parts[:1]).unify_dictionaries()

    def _rows(self, groups: Sequence[_Group], columns: list[str], condition: Any) -> pa.Table:  # noqa: ANN401, an Arrow expression
        numbers: dict[int, list[int]] = {}
        for group in groups:
            numbers.setdefault(group.file, []).append(group.number)
        fragments = [self._fragment(place).subset(row_group_ids=of_file) for place, of_file in numbers.items()]
        return ds.FileSystemDataset(fragments, self._schema, self._form, self._storage).to_table(columns=columns, filter=condition)

    def _fragment(self, place: int) -> Any:  # noqa: ANN401, pyarrow is untyped
        if place in self._kept:
            return self._kept[place]
        fragment = self._form.make_fragment(self._files[place], filesystem=self._storage)
        if len(self._kept) < FOOTERS:
            self._kept[place] = fragment
        return fragment

    def _groups_of(self, place: int) -> list[_Group]:
        footer = self._fragment(place).metadata
        self.columns.update(footer.schema.names)
        columns = [footer.schema.names.index(name) for name in _BOUNDED]
        groups = []
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            bounds = [group.column(column).statistics for column in columns]
            known = all(each is not None and each.has_min_max for each in bounds)
            least, most = (tuple(getattr(each, edge) for each in bounds) if known else None for edge in ("min", "max"))
            groups.append(_Group(place, number, least or ("", ""), most))
        return groups


def in_order(rows: pa.Table, order: Numbers) -> Iterator[pa.Table]:
    """Rows in an order, a row group at a time.

    Of each piece of ``rows`` only that part is looked at which a row group's rows lie in: nothing is copied as a whole, and most of the time of
    a large copy is the system's, for its memory.
    """
    batches = rows.to_batches()
    edges = np.cumsum([0, *(batch.num_rows for batch in batches)])
    for start in range(0, len(order), ROW_GROUP_ROWS):
        places = order[start : start + ROW_GROUP_ROWS]
        ascending = np.sort(places, kind="stable")
        cuts = np.searchsorted(ascending, edges)
        pieces = np.flatnonzero(cuts[1:] > cuts[:-1])
        first, last = ascending[cuts[pieces]], ascending[cuts[pieces + 1] - 1] + 1
        if int((last - first).sum()) > SPREAD * len(places):
            yield from _all_in_order(rows, order[start:])
            return
        parts = [batches[piece].slice(low - edges[piece], high - low) for piece, low, high in zip(pieces, first, last, strict=True)]
        found = pa.Table.from_batches(parts, rows.schema)
        among = np.cumsum(last - first) - (last - first)
        piece = np.searchsorted(first, places, side="right") - 1
        wanted = places - first[piece] + among[piece]
        is_so = len(wanted) == found.num_rows and bool(np.all(wanted[1:] > wanted[:-1]))
        yield found if is_so else found.take(pa.array(wanted))


def _all_in_order(rows: pa.Table, order: Numbers) -> Iterator[pa.Table]:
    """As ``in_order``, where rows that follow one another lie all over."""
    rows = rows.combine_chunks()
    for start in range(0, len(order), ROW_GROUP_ROWS):
        yield rows.take(pa.array(order[start : start + ROW_GROUP_ROWS]))
