"""Parameters of the API: defaults, and errors that name parameter, value and what is allowed."""

from __future__ import annotations

import pytest

from virtflow.exporter.api.endpoints import BY_NAME, ENDPOINTS
from virtflow.exporter.api.parameters import VM_PARAMETERS, Parameter, ParameterError, parse


def test_what_is_not_given_is_the_default() -> None:
    assert parse(VM_PARAMETERS, []) == {
        "sort": "name",
        "filter": "",
        "project": "",
        "node": "",
        "state": "",
        "flag": "",
        "history": "",
        "limit": 100,
        "after": "",
    }


def test_an_empty_field_of_a_form_is_not_given() -> None:
    assert parse(VM_PARAMETERS, [("filter", ""), ("limit", ""), ("sort", "")])["sort"] == "name"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("sort", "bogus", "name, node, project"),
        ("sort", "--cpu", "each with - in front"),
        ("limit", "0", "a whole number from 1 to 1000"),
        ("limit", "1001", "a whole number from 1 to 1000"),
        ("limit", "ten", "a whole number from 1 to 1000"),
        ("limit", "٣", "a whole number from 1 to 1000"),
        ("limit", "9" * 5000, "a whole number from 1 to 1000"),
        ("state", "Running", "no_state, running"),
        ("flag", "broken", "stuck, migrating, conflict, not_probed"),
        ("filter", "x" * 257, "text of at most 256 characters"),
        ("bogus", "1", "the parameters sort, filter"),
        ("history", "cpu", "cpu_cores"),
    ],
)
def test_an_error_names_parameter_value_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(ParameterError) as found:
        parse(VM_PARAMETERS, [(name, value)])
    assert found.value.parameter == name
    assert value.startswith(found.value.value)
    assert allowed in found.value.allowed
    assert len(str(found.value)) < 700


def test_a_parameter_given_twice_is_an_error() -> None:
    with pytest.raises(ParameterError, match="allowed: once"):
        parse(VM_PARAMETERS, [("limit", "1"), ("limit", "2")])


def test_what_an_error_repeats_is_safe_to_show() -> None:
    with pytest.raises(ParameterError) as found:
        parse((), [("a\x1b[31m", "b\x00c")])
    assert (found.value.parameter, found.value.value) == ("a\ufffd[31m", "b\ufffdc")
    assert found.value.allowed == "no parameter at all"


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if one.parameters], ids=lambda endpoint: endpoint.name)
def test_every_choice_and_default_can_be_used(endpoint: object) -> None:
    """What an error says is allowed is taken."""
    for parameter in BY_NAME[endpoint.name].parameters:  # type: ignore[attr-defined]
        if parameter.default:
            assert parse([parameter], [(parameter.name, str(parameter.default))])[parameter.name] == parameter.default
        for choice in parameter.choices:
            assert parse([parameter], [(parameter.name, choice)])[parameter.name] == choice
            if parameter.signed:
                assert parse([parameter], [(parameter.name, f"-{choice}")])[parameter.name] == f"-{choice}"


def test_a_number_is_a_number() -> None:
    assert Parameter("limit", "", default=5, maximum=9).parse("9") == 9
