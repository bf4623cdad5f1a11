"""What was released stays readable and keeps its names: schemas both ways, recorded messages, metric names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import avro.schema
import msgspec
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from tools.release_schemas import NAMES, SCALING_NAMES, golden_record, released_lines, scaling_lines
from virtflow.schemas.avro.codec import Codec, schema_fingerprint
from virtflow.schemas.avro.schema import Schema, schema_of
from virtflow.schemas.records import RECORDS, Record

SINGLE_OBJECT_MAGIC = b"\xc3\x01"

ROOT = Path(__file__).resolve().parents[2]
RELEASED = sorted((ROOT / "schemas" / "released").glob("*/*.avsc"))
GOLDEN = sorted((ROOT / "tests" / "contract" / "data").glob("*/*.bin"))
BY_NAME: dict[str, type[Record]] = {record.__name__: record for record in RECORDS}
NEW_FIELD = {"name": "later", "type": "long", "default": -1}


def label(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def problems(reader: Schema, writer: Schema) -> list[str]:
    """Why Apache's reader with one schema could not read what was written with the other."""
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    found = checker.get_compatibility(avro.schema.parse(json.dumps(reader)), avro.schema.parse(json.dumps(writer)))
    return [] if found.compatibility is SchemaCompatibilityType.compatible else sorted(found.messages)


@pytest.mark.parametrize("path", RELEASED, ids=label)
def test_the_current_schema_and_every_released_one_read_each_other(path: Path) -> None:
    released, current = json.loads(path.read_text()), schema_of(BY_NAME[path.stem])
    assert problems(reader=current, writer=released) == []
    assert problems(reader=released, writer=current) == []


def test_the_check_would_notice() -> None:
    """A field without default, a changed type and a renamed field are each refused one way at least; a new field with default is fine."""
    current = schema_of(BY_NAME["VmMetrics"])
    fields = current["fields"]

    def changed(*, last: dict[str, Any]) -> Schema:
        return {**current, "fields": [*fields[:-1], last]}

    assert problems({**current, "fields": [*fields, NEW_FIELD]}, current) == []
    assert problems(current, {**current, "fields": [*fields, NEW_FIELD]}) == []
    assert problems({**current, "fields": [*fields, {"name": "later", "type": "long"}]}, current)
    assert problems(changed(last={**fields[-1], "type": "string", "default": ""}), current)


def test_every_record_has_been_released() -> None:
    assert {path.stem for path in RELEASED} == set(BY_NAME)
    assert {path.stem for path in GOLDEN} == set(BY_NAME)


@pytest.mark.parametrize("path", GOLDEN, ids=label)
def test_a_recorded_message_of_every_release_is_read(path: Path) -> None:
    """What an old producer wrote has its values; what it did not know is absent, never 0."""
    record = BY_NAME[path.stem]
    decoded = Codec().decode(path.read_bytes(), record)
    assert_holds(
        msgspec.to_builtins(decoded), json.loads(path.with_suffix(".json").read_text()), msgspec.to_builtins(golden_record(record))
    )


def assert_holds(decoded: Any, recorded: Any, current: Any) -> None:  # noqa: ANN401, plain data
    """Everything recorded is there; what only the current record knows holds its default."""
    if isinstance(recorded, dict) and isinstance(decoded, dict):
        assert recorded.keys() - current.keys() == set()
        for key, value in recorded.items():
            assert_holds(decoded[key], value, current[key])
        assert all(decoded[key] != 0 for key in decoded.keys() - recorded.keys())
    elif isinstance(recorded, list):
        assert len(decoded) == len(recorded)
        for one, other, now in zip(decoded, recorded, current, strict=True):
            assert_holds(one, other, now)
    else:
        assert decoded == recorded


@pytest.mark.parametrize("path", GOLDEN, ids=label)
def test_a_recorded_message_names_the_released_schema(path: Path) -> None:
    """The header's fingerprint is that of the released file, so that the message says what it was written with."""
    released = json.loads((ROOT / "schemas" / "released" / path.parent.name / f"{path.stem}.avsc").read_text())
    assert path.read_bytes()[:10] == SINGLE_OBJECT_MAGIC + bytes.fromhex(schema_fingerprint(released))


def test_no_released_metric_changed_its_name_type_unit_or_labels() -> None:
    """Adding is free. A metric that has to go is declared so in a major release, by editing the released file by hand."""
    gone = set(NAMES.read_text().splitlines()) - set(released_lines())
    assert gone == set()


def test_no_released_name_of_the_kubernetes_api_changed_what_it_is_made_of() -> None:
    """An autoscaler that names it goes on scaling by the same."""
    released = SCALING_NAMES.read_text().splitlines()
    assert len(released) > 60
    assert set(released) - set(scaling_lines()) == set()
