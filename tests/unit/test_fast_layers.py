"""What the tools that compare with an older commit make of pytest's and coverage's output."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.fast_layers import Fast, lines_of, outcomes_of
from tools.structure import Structure, measured


def test_outcomes_are_those_of_the_last_line() -> None:
    assert outcomes_of("1 failed\n=== 3 failed, 12 passed, 1 skipped, 2 errors in 4.00s ===\n") == {
        "failed": 3,
        "passed": 12,
        "skipped": 1,
        "error": 2,
    }


def test_output_without_tests_is_an_error() -> None:
    with pytest.raises(ValueError, match="pytest reported no tests: no module named xdist"):
        outcomes_of("no module named xdist")


def checkout(root: Path) -> Path:
    """Two packages: of one module that imports the other, and is long, and of one that is generated."""
    for package in ("schemas", "runtime"):
        (root / package).mkdir()
        (root / package / "__init__.py").write_text("")
    (root / "schemas" / "order.py").write_text("def newer(a: int) -> bool:\n    return a > 1\n")
    (root / "schemas" / "writers_generated.py").write_text("A = 1\n")
    (root / "runtime" / "log.py").write_text("from virtflow.schemas.order import newer\n\nnewer(2)\n")
    return root


def test_lines_count_where_a_person_wrote_them(tmp_path: Path) -> None:
    """Not those of a generated module or of a package's ``__init__``."""
    root = checkout(tmp_path)
    names = {
        "schemas/order.py": (2, 1),
        "schemas/writers_generated.py": (100, 100),
        "runtime/log.py": (2, 2),
        "runtime/__init__.py": (9, 9),
    }
    files = {name: {"summary": {"num_statements": lines, "covered_lines": ran}} for name, (lines, ran) in names.items()}
    assert lines_of({"files": files}, root) == (4, 3)


def test_figures_are_named_with_their_units() -> None:
    assert Fast({"passed": 9, "failed": 2, "skipped": 1}, 4, 3, 90.0).figures() == {
        "tests that pass": "9",
        "tests that fail or are skipped": "3",
        "lines that can run": "4",
        "share of them that ran": "75.0%",
        "processor time of the layers": "1.5 min",
    }


def test_the_structure_counts_written_modules_and_their_arrows(tmp_path: Path) -> None:
    found = measured(checkout(tmp_path))
    assert found == Structure(found.rooms, frozenset({("runtime/log.py", "schemas/order.py")}), functions=(2,), modules=(2, 3))
    assert dict(found.rooms) == {"schemas": 1, "runtime": 1}
    assert found.figures()["arrows between rooms"] == "1"
