"""How long tests are: at full length by ``pytest --long`` or VIRTFLOW_TEST_LONG=1, without which faults, kills and builds are shortened.

With the profile ``quick`` (``scripts/test fast``) random tests try fewer examples still.
"""

from __future__ import annotations

import os
from typing import TypeVar

VARIABLE = "VIRTFLOW_TEST_LONG"
LONG = os.environ.get(VARIABLE, "") not in {"", "0"}
"""Fixed once pytest is configured: tests/conftest.py sets the variable when it is given ``--long``."""

QUICK = os.environ.get("VIRTFLOW_TEST_PROFILE") == "quick"

Length = TypeVar("Length")


def length(short: Length, full: Length) -> Length:
    """``full`` with ``--long``, else ``short``: what CI runs."""
    return full if LONG else short
