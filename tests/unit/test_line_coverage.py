"""What the coverage report makes of coverage's own data."""

from __future__ import annotations

from tools.line_coverage import FLOOR, MODULES, ROOT, Covered, committed, matching, paths, report_of, row


def test_every_pattern_names_modules_that_exist() -> None:
    found = paths()
    assert {"producer/sampler.py", "producer/hung_calls/breaker.py", "producer/agent/supervisor.py"} <= set(found)
    assert all((ROOT / path).is_file() for path in found)


def test_a_module_that_no_test_imports_is_below_the_floor() -> None:
    data = {"files": {str(ROOT / "producer/sampler.py"): {"summary": {"percent_covered": FLOOR}, "missing_lines": [7, 9]}}}
    fine, low = report_of(data, ["producer/sampler.py", "producer/sampling.py"])
    assert (fine, fine.fine) == (Covered("producer/sampler.py", FLOOR, (7, 9)), True)
    assert (low.percent, low.fine) == (0.0, False)
    assert str(fine) == " 85.0 %  producer/sampler.py  without 7, 9"


def test_the_page_has_every_pattern_at_or_above_the_floor() -> None:
    assert set(committed()) == set(MODULES)
    assert min(committed().values()) >= FLOOR == 85.0


def test_a_row_has_the_module_that_is_covered_least() -> None:
    paths = matching("producer/sampl*.py")
    report = [Covered(path, 90.0 + place, ()) for place, path in enumerate(paths)]
    assert row("producer/sampl*.py", report) == f"| `producer/sampl*.py` | {len(paths)} | 90% |"
