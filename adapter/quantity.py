"""Numbers as Kubernetes quantities. Pure. Source: apimachinery's ``resource.Quantity``."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

DIGITS: Final = 9
"""Digits behind the point that a quantity can have."""
SIGNIFICANT: Final = 9
"""Digits that are kept of a number that is not whole."""
LARGEST: Final = 18
"""Power of ten from which on no digit behind the point is looked at."""
_SUFFIXES: Final = {0: "", 3: "m", 6: "u", 9: "n"}


def quantity(value: float) -> str:
    """A finite number as a whole number of the largest unit that holds it: ``1536``, ``250m``, ``1234567u``.

    Whole numbers are exact, others have nine significant digits, and nothing is smaller than a thousand-millionth.
    """
    exact = Decimal(value)
    if exact.adjusted() > LARGEST:
        return str(int(exact))
    places = min(DIGITS, max(0, SIGNIFICANT - 1 - exact.adjusted())) if exact else 0
    rounded = exact.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN)
    for digits, suffix in _SUFFIXES.items():
        scaled = rounded.scaleb(digits)
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    raise ValueError(value)  # never: at most nine digits are left behind the point
