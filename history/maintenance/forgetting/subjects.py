"""Who is to be forgotten: VMs by UUID, or by a name that only one VM ever had, and projects."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from virtflow.history.storage.delta import Store
from virtflow.history.storage.scope import COLUMNS, Owned, owned_by, touched
from virtflow.history.storage.table_schemas import INVENTORY_ROWS, Table
from virtflow.schemas.errors import InputError
from virtflow.schemas.projects import PROJECT_IDS, PROJECT_NAMES


class UnknownSubjectError(InputError):
    """No VM or project of that name is in the tables, or several VMs are; the text says which."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be forgotten: ``kind`` is vm or project, ``name`` as it was given, and what of the tables that is."""

    kind: str
    name: str
    owned: tuple[Owned, ...]

    def condition(self, table: Table) -> Any:  # noqa: ANN401, an Arrow expression
        """The table's rows that are to be forgotten."""
        return touched(table, self.owned)


def vms(store: Store, given: Sequence[str]) -> list[Subject]:
    """VMs by UUID or name; raises ``UnknownSubjectError`` where no VM, or more than one, ever had the name."""
    return [Subject("vm", each, (Owned(_uuid_of(store, each), None, None),)) for each in dict.fromkeys(given)]


def project(store: Store, name: str) -> Subject:
    """A project's VMs in the time in which they were its own; raises ``UnknownSubjectError`` where it never had any."""
    rows = store.open(INVENTORY_ROWS).read(COLUMNS) if store.exists(INVENTORY_ROWS) else None
    owned = tuple(owned_by(name, rows)) if name and rows is not None else ()
    if not owned:
        raise UnknownSubjectError(f"the history knows no project {name!r}; give its id, or its name where the platform has no ids")
    return Subject("project", name, owned)


def _uuid_of(store: Store, given: str) -> str:
    try:
        return str(uuid.UUID(given))
    except ValueError:
        found = _named(store, given)
    if not found:
        raise UnknownSubjectError(f"the history knows no VM named {given!r}; name it as it was, or by its UUID")
    if len(found) > 1:
        listed = ", ".join(f"{each} ({owner})" for each, owner in _owners(store, found).items())
        raise UnknownSubjectError(f"{len(found)} VMs had the name {given!r}: {listed}; give --vm with the UUID of each that is meant")
    return found[0]


def _named(store: Store, name: str) -> list[str]:
    """The UUIDs of all VMs that ever had a name, in any table."""
    found: set[str] = set()
    for table in store.tables():
        if {"uuid", "name"} <= set(table.schema.names):
            found |= set(store.open(table).read(["uuid"], pc.field("name") == name).column("uuid").unique().to_pylist())
    return sorted(found)


def _owners(store: Store, uuids: Sequence[str]) -> dict[str, str]:
    """Of each VM its newest project: what names it, and by what it is told apart where that is something else."""
    found = dict.fromkeys(uuids, "no known project")
    if not store.exists(INVENTORY_ROWS):
        return found
    rows = store.open(INVENTORY_ROWS).read(COLUMNS, pc.field("uuid").isin(pa.array(uuids, pa.string())))
    for row in rows.sort_by("time").to_pylist():
        name, identity = (next((row[each] for each in fields if row[each]), "") for fields in (PROJECT_NAMES, PROJECT_IDS))
        words = " ".join(dict.fromkeys(word for word in (name, identity) if word))
        found[row["uuid"]] = f"project {words}" if words else "no project"
    return found
