"""Numbers as quantities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.adapter.quantity import quantity

SUFFIXES = {"m": 1e-3, "u": 1e-6, "n": 1e-9}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (2.0, "2"),
        (0.25, "250m"),
        (1.5, "1500m"),
        (0.1, "100m"),
        (1 / 3, "333333333n"),
        (12345.6789, "12345678900u"),
        (2**63, "9223372036854775808"),
        (1e18 + 0.5, "1000000000000000000"),
        (123456789.123456, "123456789"),
        (1e-9, "1n"),
        (1e-12, "0"),
        (-0.5, "-500m"),
    ],
)
def test_quantities(value: float, text: str) -> None:
    assert quantity(value) == text


@given(st.floats(min_value=0, max_value=1e18))
def test_a_quantity_is_its_number(value: float) -> None:
    """To nine digits, or a thousand-millionth."""
    text = quantity(value)
    suffix = text[-1] if text[-1] in SUFFIXES else ""
    assert int(text.removesuffix(suffix)) * SUFFIXES.get(suffix, 1.0) == pytest.approx(value, rel=1e-8, abs=1e-9)
