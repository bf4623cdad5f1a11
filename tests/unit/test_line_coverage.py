"""What the coverage report makes of coverage's own data."""

from __future__ import annotations

from tools.line_coverage import FLOOR, ROOT, Covered, paths, report_of


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
