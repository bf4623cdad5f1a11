"""The OpenAPI document: every answer is what it says, and docs/openapi.json is it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from tests.support.fleet_samples import migration, seen_twice, taken, updated
from tests.support.vm_samples import WALL, fleet, uuid
from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME, ENDPOINTS, PREFIX
from virtflow.exporter.api.openapi import document
from virtflow.exporter.api.parameters import parse
from virtflow.exporter.api.targets import target_groups
from virtflow.exporter.long_history.answer import vm_history
from virtflow.exporter.long_history.periods import Period
from virtflow.exporter.shard import EVERYTHING

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """An answer of each endpoint."""
    view = seen_twice(fleet(), 60)
    view.fleet.changes.open()
    taken(view.fleet, [migration(1)], 10.0)
    answers = Answers(updated(view, 10.0), "run", "0.1.0", lambda: "")

    def asked(name: str, **given: str) -> Any:  # noqa: ANN401, the parsed parameters
        return parse(BY_NAME[name].parameters, given.items())

    return {
        "fleet": answers.fleet(WALL),
        "vms": answers.vms(asked("vms", history="cpu_cores"), WALL),
        "vm": answers.vm(uuid(1), WALL),
        "vm_history": vm_history(uuid(1), "cpu_cores", Period(0, 600, 300), [None, 1.5, 2.0]),
        "nodes": answers.nodes(asked("nodes"), WALL),
        "node": answers.node("node-1", WALL),
        "migrations": answers.migrations(asked("migrations"), WALL),
        "events": answers.events(asked("events"), WALL),
        "targets": target_groups((), EVERYTHING, "", "127.0.0.1:9177"),
    }


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_answers_are_what_the_document_says(endpoint: Any, told: dict[str, Any]) -> None:  # noqa: ANN401, an endpoint
    """Field by field: none is missing, none is there that it does not name."""
    described = document()
    schema = described["paths"][f"{PREFIX}{endpoint.path}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    strict = {
        name: each | {"additionalProperties": False} if "properties" in each else each
        for name, each in described["components"]["schemas"].items()
    }
    answer = msgspec.json.decode(msgspec.json.encode(told[endpoint.name]))
    jsonschema.validate(answer, {**schema, "components": {"schemas": strict}}, jsonschema.Draft202012Validator)


def test_every_parameter_is_described() -> None:
    for endpoint in ENDPOINTS:
        found = document()["paths"][f"{PREFIX}{endpoint.path}"]["get"].get("parameters", [])
        inside = [word.strip("{}") for word in endpoint.path.split("/") if word.startswith("{")]
        assert [each["name"] for each in found] == [*inside, *(each.name for each in endpoint.parameters)]


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(document())
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names
    assert names <= set(document()["components"]["schemas"])


def test_the_published_document_is_this_one() -> None:
    """Made by scripts/generate: a change of the API shows in a review."""
    assert json.loads((ROOT / "docs" / "openapi.json").read_text()) == document()
