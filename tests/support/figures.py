"""What tests measured, as lines of JSON: one per figure, in the file named by VIRTFLOW_FIGURES."""

from __future__ import annotations

import json
import os
from pathlib import Path

VARIABLE = "VIRTFLOW_FIGURES"


def figure(row: int, name: str, value: float | str, unit: str = "") -> None:
    """Append one figure of the row of faults to the file named by VIRTFLOW_FIGURES; nothing happens when that is not set."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" ", 1)[0]
    line = json.dumps({"row": row, "name": name, "value": value, "unit": unit, "test": test})
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
