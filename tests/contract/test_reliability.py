"""The page of faults names tests that there are, and its figures are those of these tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rows import FAULTS, Fault
from tests.support.figures import VARIABLE, figure
from tools import reliability
from tools.reliability import outcomes, row
from tools.reliability_page import FOLDER, RESULTS, ROOT, named_tests, own_files, page, results

BY_NUMBER = {fault.number: fault for fault in FAULTS}
EXAMPLE = BY_NUMBER[12]
KNOWN: dict[str, Any] = {"tests": {}, "seconds": 1, "figures": [], "machine": "2 CPUs", "version": "1", "date": "2026-01-01", "long": False}
TEST = "tests/faults/test_12_made_anew.py::test_two_vms_of_one_name_are_two_identities"


def test_the_rows_are_numbered_without_a_gap() -> None:
    assert [fault.number for fault in FAULTS] == list(range(1, 35))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.number))
def test_every_row_has_tests_that_exist(fault: Fault) -> None:
    tests = named_tests(fault)
    assert tests
    assert all(tests.values())


@pytest.mark.parametrize("wrong", ["tests/faults/test_12_no_such_file.py", f"{TEST}_at_all"])
def test_a_test_that_there_is_not_is_found(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"row 12: there is no test {wrong}"):
        named_tests(replace(EXAMPLE, elsewhere=(wrong,)))


def test_every_file_of_faults_belongs_to_a_row() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / FOLDER).glob("test_*.py")}
    assert files == {path for fault in FAULTS for path in named_tests(fault) if path.startswith(FOLDER)}
    assert own_files(BY_NUMBER[25]) == ["tests/faults/test_25_broker_restored.py", "tests/faults/test_25_processors_lose.py"]


def test_the_figures_are_of_tests_of_their_row() -> None:
    """A test that was renamed or deleted since then takes its figures with it: run the row again."""
    for number, found in results().items():
        names = {f"{path}::{name}" for path, tests in named_tests(BY_NUMBER[int(number)]).items() for name in tests}
        assert set(found["tests"]) <= names, number
        assert {one["test"].partition("[")[0] for one in found["figures"]} <= names, number


def test_what_was_measured_is_what_the_page_shows() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert text == page(json.loads(RESULTS.read_text()) if RESULTS.exists() else {})


REPORT = """<testsuites><testsuite name="pytest">
<testcase classname="tests.faults.test_12_made_anew" name="test_two_vms_of_one_name_are_two_identities[a]" time="1.5"/>
<testcase classname="tests.faults.test_12_made_anew" name="test_two_vms_of_one_name_are_two_identities[b]" time="2.0"><failure/></testcase>
<testcase classname="tests.faults.test_12_made_anew" name="test_two_vms_of_one_name_are_two_identities[c]" time="0.5"><skipped/></testcase>
<testcase classname="tests.contract.test_kafka_contract.TestReading" name="test_some" time="0.1"/>
</testsuite></testsuites>"""


def test_the_worst_of_a_tests_parameters_counts() -> None:
    ended, seconds = outcomes(REPORT)
    assert ended == {TEST: "failed", "tests/contract/test_kafka_contract.py::TestReading::test_some": "passed"}
    assert seconds[TEST] == 4.0


def test_a_row_takes_its_own_tests_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a figure that was given twice the last one; what another row measured is not in it."""
    lines = tmp_path / "lines"
    monkeypatch.setenv(VARIABLE, str(lines))
    monkeypatch.setenv("PYTEST_CURRENT_TEST", f"{TEST} (call)")
    for number, value in ((12, 1.0), (12, 2.5), (13, 7)):
        figure(number, "time", value, "s")
    figure(12, "kind", "some")
    found = row(EXAMPLE, *outcomes(REPORT), map(json.loads, lines.read_text().splitlines()))
    assert found == {
        "tests": {TEST: "failed"},
        "seconds": 4,
        "figures": [
            {"name": "time", "value": 2.5, "unit": "s", "test": TEST},
            {"name": "kind", "value": "some", "unit": "", "test": TEST},
        ],
    }
    shown = page({"12": found | {"machine": "2 CPUs", "version": "1", "date": "2026-01-01", "long": True}})
    assert "| time | 2.5 s | `test_two_vms_of_one_name_are_two_identities` |" in shown
    assert "1 failed, 2026-01-01, full length" in shown


def test_a_run_of_every_test_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows whose tests are all in its reports, whichever layer's; what is known at full length stays, unless it was asked for."""
    monkeypatch.setattr(reliability, "RESULTS", tmp_path / "reliability.json")
    monkeypatch.setattr(reliability, "PAGE", tmp_path / "reliability.md")
    monkeypatch.setattr(reliability, "results", lambda: {"2": KNOWN | {"long": True}, "12": KNOWN})
    cases = [
        f'<testcase classname="{path.removesuffix(".py").replace("/", ".")}" name="{name}" time="1"/>'
        for number in (2, 12)
        for path, names in named_tests(BY_NUMBER[number]).items()
        for name in names
    ]
    for number, case in enumerate(cases):
        (tmp_path / f"{number}.xml").write_text(f"<testsuite>{case}</testsuite>")
    lines = tmp_path / "figures.jsonl"
    lines.write_text(json.dumps({"row": 12, "name": "time", "value": 1.5, "unit": "s", "test": TEST}) + "\n")

    def rows_after(*words: str) -> dict[str, Any]:
        assert reliability.main(["--from", str(tmp_path), *words]) == 0
        found: dict[str, Any] = json.loads((tmp_path / "reliability.json").read_text())
        assert set(found) == {"2", "12"}
        return found

    found = rows_after()
    assert found["2"] == KNOWN | {"long": True}
    tests = named_tests(EXAMPLE).values()
    assert found["12"]["seconds"] == sum(map(len, tests))
    assert [one["value"] for one in found["12"]["figures"]] == [1.5]
    assert rows_after("2")["2"]["long"] is False
    (tmp_path / "0.xml").unlink()
    assert rows_after("2")["2"] == KNOWN | {"long": True}


def test_a_folder_without_a_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"{tmp_path} has no report: scripts/test --reports {tmp_path} writes them"):
        reliability.main(["--from", str(tmp_path)])


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    figure(12, "time", 1.0)
    assert not list(tmp_path.iterdir())
