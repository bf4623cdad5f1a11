"""The OpenAPI document (3.1) of the API, made of its endpoints, parameters and structs."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any, Final

import msgspec

from virtflow.exporter.api.endpoints import ENDPOINTS, PREFIX, STREAM_TYPE, Endpoint, ErrorAnswer
from virtflow.exporter.api.parameters import Parameter

VERSION: Final = "1.0.0"
"""Of the API: a new minor version adds, a new major one would have another prefix."""
_REFERENCE: Final = "#/components/schemas/{name}"
_ABOUT: Final = (
    "The fleet as it is now, read only. What version 1 has keeps its name and meaning; fields and parameters may be added. "
    "null is unknown. Rates are per second, between the last two samples of a VM; times are Unix seconds, sizes bytes, ratios 0 to 1."
)


def document() -> dict[str, Any]:
    """The document as JSON builtins."""
    answers = [endpoint.answer for endpoint in ENDPOINTS]
    schemas, components = msgspec.json.schema_components([*answers, ErrorAnswer], ref_template=_REFERENCE)
    for component in components.values():
        if "description" in component:  # a class's docstring, which Python strips of its indentation from 3.13 on
            component["description"] = cleandoc(component["description"])
    paths = {f"{PREFIX}{each.path}": {"get": _operation(each, schema)} for each, schema in zip(ENDPOINTS, schemas, strict=False)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "virtflow fleet API",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "virtflow exporter, or virtflow node"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(endpoint: Endpoint, schema: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if endpoint.streams:
        stream = "Server-sent events: `event` is the change's kind, `id` its id, `data` an Event as JSON; `lost` says that earlier ones are gone."
        content[STREAM_TYPE] = {"schema": {"type": "string", "description": stream}}
    answers: dict[str, Any] = {"200": {"description": endpoint.about, "content": content}}
    if endpoint.parameters or endpoint.path == "/targets":
        answers["400"] = _error("A parameter that can't be used; the error names it, its value and what is allowed.")
    if "{" in endpoint.path:
        answers["404"] = _error("There is none.")
    if endpoint.asks:
        answers["502"] = _error("The history server refuses, or its answer can't be used; the error says why.")
        answers["503"] = _error("The history server can't be reached, or too many questions wait for it.")
        answers["504"] = _error("The history server does not answer in time.")
    elif not endpoint.streams and endpoint.path != "/targets":
        answers["304"] = {"description": "Nothing but ages has changed since the answer with the ETag in `If-None-Match`."}
    found = {"operationId": endpoint.name, "summary": endpoint.about, "responses": answers}
    inside = [_path_parameter(word) for word in endpoint.path.split("/") if word.startswith("{")]
    return found | ({"parameters": inside + [_parameter(each) for each in endpoint.parameters]} if inside or endpoint.parameters else {})


def _error(about: str) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(name="ErrorAnswer")}}}}


def _path_parameter(word: str) -> dict[str, Any]:
    return {"name": word.strip("{}"), "in": "path", "required": True, "schema": {"type": "string"}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if parameter.maximum:
        schema = {"type": "integer", "minimum": 1, "maximum": parameter.maximum}
    elif parameter.choices:
        schema["enum"] = [sign + choice for choice in parameter.choices for sign in (("", "-") if parameter.signed else ("",))]
    if parameter.default:
        schema["default"] = parameter.default
    return {"name": parameter.name, "in": "query", "description": parameter.about, "schema": schema}
