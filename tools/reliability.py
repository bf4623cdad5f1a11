"""``scripts/reliability``: runs the tests of the faults, and writes what they measured: docs/reliability.json, and from it docs/reliability.md.

    scripts/reliability             every row of tests/faults/rows.py
    scripts/reliability 8 21        these rows; the page keeps the others
    scripts/reliability --long 3    at full length
    scripts/reliability --from DIR  runs nothing, takes what ``scripts/test --reports DIR`` left; rows at full length are kept unless named
    scripts/reliability --page      only the page, from what was measured before

The exit code is 1 where a test failed; the page says which.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.part import where
from tests.faults.rows import FAULTS, Fault
from tests.support.figures import VARIABLE
from tools.reliability_page import RESULTS, ROOT, arguments, named_tests, page, results

PAGE: Final = ROOT / "docs" / "reliability.md"
WORKERS: Final = "VIRTFLOW_TEST_WORKERS"
WORST: Final = ("failed", "skipped", "passed")
"""Of a test that ran with several parameters, the worst counts."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the rows that were asked for and writes both files; 1 where a test failed."""
    given = _parser().parse_args(words)
    known = results()
    failed = False
    if given.source:
        fresh, failed = _taken(given.source, [fault for fault in FAULTS if _replaceable(fault, given.rows, known)])
        known |= fresh
    elif not given.page:
        faults = [fault for fault in FAULTS if fault.number in (given.rows or range(1, len(FAULTS) + 1))]
        fresh, failed = _run([fault for fault in faults if arguments(fault)], long=given.long)
        known |= fresh
    if not given.page:
        _write(RESULTS, json.dumps({number: known[number] for number in sorted(known, key=int)}, indent=1) + "\n")
    _write(PAGE, page(known))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    about, _, examples = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="scripts/reliability", description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = [fault.number for fault in FAULTS]
    parser.add_argument("rows", nargs="*", type=int, choices=[*numbers, []], metavar="ROW", help="the rows to run")
    parser.add_argument("--long", action="store_true", help="full-length faults and kills, on every release of libvirt")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="take what scripts/test --reports DIR left")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page again from what was measured before")
    return parser


def _replaceable(fault: Fault, rows: Sequence[int], known: Mapping[str, Any]) -> bool:
    """Whether a run of every test may write this row: one at full length says more."""
    return fault.number in rows if rows else not known.get(str(fault.number), {}).get("long", False)


def _taken(folder: Path, faults: Sequence[Fault]) -> tuple[dict[str, Any], bool]:
    """As ``_run``, of a run that was: the rows of which it ran every test. Raises ``SystemExit`` where no report is there."""
    reports = sorted(folder.glob("*.xml"))
    if not reports:
        raise SystemExit(f"reliability: {folder} has no report: scripts/test --reports {folder} writes them")
    ended: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for report in reports:
        more, took = outcomes(report.read_text())
        ended |= more
        seconds |= took
    lines = [json.loads(line) for line in (folder / "figures.jsonl").read_text().splitlines()]
    whole = [fault for fault in faults if (names := _names(fault)) and names <= ended.keys()]
    fresh = {str(fault.number): row(fault, ended, seconds, lines) | where() | {"long": False} for fault in whole}
    return fresh, any("failed" in found["tests"].values() for found in fresh.values())


def _names(fault: Fault) -> set[str]:
    return {f"{path}::{name}" for path, tests in named_tests(fault).items() for name in tests}


def _run(faults: Sequence[Fault], *, long: bool) -> tuple[dict[str, Any], bool]:
    """What the rows' tests measured and how they ended, and whether any of them failed; a test that several rows name runs once."""
    machine = where()
    with tempfile.TemporaryDirectory(prefix="virtflow-reliability-") as folder:
        figures, report = Path(folder) / "figures.jsonl", Path(folder) / "report.xml"
        figures.touch()
        wanted = list(dict.fromkeys(name for fault in faults for name in arguments(fault)))
        options = ["-v", "-n", os.environ.get(WORKERS, "2"), f"--junit-xml={report}", *(["--long"] if long else [])]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *wanted], cwd=ROOT, env={**os.environ, VARIABLE: str(figures)}, check=False
        )
        ended, seconds = outcomes(report.read_text()) if report.exists() else ({}, {})
        lines = [json.loads(line) for line in figures.read_text().splitlines()]
    return {str(fault.number): row(fault, ended, seconds, lines) | machine | {"long": long} for fault in faults}, done.returncode != 0


def outcomes(report: str) -> tuple[dict[str, str], dict[str, float]]:
    """How each test of a JUnit report ended and how many seconds it took, by FILE::NAME without its parameters."""
    ended: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for case in ET.fromstring(report).iter("testcase"):  # noqa: S314, pytest's own report
        name = _name_of(case.get("classname", ""), case.get("name", ""))
        bad = {child.tag for child in case}
        how = "failed" if bad & {"failure", "error"} else "skipped" if "skipped" in bad else "passed"
        ended[name] = min(how, ended.get(name, how), key=WORST.index)
        seconds[name] = seconds.get(name, 0.0) + float(case.get("time", "0"))
    return ended, seconds


def _name_of(classname: str, name: str) -> str:
    """FILE::NAME, or FILE::CLASS::NAME, of a report's ``tests.faults.test_x.Class`` and ``test_y[parameter]``."""
    parts = classname.split(".")
    module = next((count for count, part in enumerate(parts, 1) if part.startswith("test_")), len(parts))
    return "::".join([f"{'/'.join(parts[:module])}.py", *parts[module:], name.partition("[")[0]])


def row(fault: Fault, ended: Mapping[str, str], seconds: Mapping[str, float], figures: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A row's own part of a run: its tests, how long they took, and its figures; of a figure that a test gives twice the last counts."""
    names = [f"{path}::{name}" for path, tests in named_tests(fault).items() for name in tests if f"{path}::{name}" in ended]
    newest = {(one["name"], one["test"]): dict(one) for one in figures if one["row"] == fault.number}
    return {
        "tests": {name: ended[name] for name in names},
        "seconds": round(sum(seconds[name] for name in names)),
        "figures": [{key: value for key, value in one.items() if key != "row"} for one in newest.values()],
    }


def _write(path: Path, text: str) -> None:
    """Never half of it."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


if __name__ == "__main__":
    sys.exit(main())
