"""How much of the thick edges do the fast tests run? Line coverage without libvirt, QEMU or a broker, with a floor for each module.

    scripts/coverage               prints each module's share and what is missing; exit 1 when one is below the floor
    scripts/coverage --write       writes the table of docs/quality.md as well

The floors are for the modules that join the pure parts to threads, processes, libvirt and Kafka: on them a line that no test runs is a line that
only a real hypervisor or a real broker would try. Those of the producer that meet libvirt are measured in every run, by ``tests/counts``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "quality.md"
FLOOR: Final = 85.0
"""Percent of a module's lines."""
HYPERVISOR_MODULES: Final = (
    "producer/sampl*.py",
    "producer/hung_calls/*.py",
    "producer/daemons/*.py",
    "producer/hypervisor/connection.py",
    "producer/hypervisor/workers.py",
    "producer/agent/supervisor.py",
)
"""What joins the producer to libvirt; ``HYPERVISOR_TESTS`` alone reach the floor there."""
MODULES: Final = (
    *HYPERVISOR_MODULES,
    "producer/publishing/*.py",
    "runtime/kafka/topic_*.py",
    "processors/delivery.py",
    "processors/instance_id.py",
    "processors/migrations/restore.py",
    "exporter/assignment.py",
    "exporter/consumer.py",
    "history/service.py",
    "history/writer/*.py",
    "history/writer/rows/*.py",
)
HYPERVISOR_TESTS: Final = ("tests/unit/producer",)
TESTS: Final = (
    *HYPERVISOR_TESTS,
    "tests/unit/runtime/test_credentials.py",
    "tests/unit/runtime/test_topics.py",
    "tests/unit/processors/test_delivery.py",
    "tests/unit/processors/test_fencing.py",
    "tests/unit/exporter/test_feed.py",
    "tests/unit/history/test_membership.py",
    "tests/unit/history/test_writer.py",
)
REAL_THREADS: Final = "*threads.py"
"""Tests whose threads end by the hundred are traced apart from those that run on greenlets. While greenlet clears up after one thread, the end of
another makes CPython 3.11 look for waiting calls at a traced function's first instruction without end."""
MISSING: Final = 12
"""Lines that are named of each module at most."""


@dataclass(frozen=True, slots=True)
class Covered:
    """One module: its path, the share of its lines that ran (percent), and the lines that did not."""

    path: str
    percent: float
    missing: tuple[int, ...]

    @property
    def fine(self) -> bool:
        """Whether it reaches the floor."""
        return self.percent >= FLOOR

    def __str__(self) -> str:
        """A line of the report."""
        named = ", ".join(str(line) for line in self.missing[:MISSING])
        rest = f" and {len(self.missing) - MISSING} more" if len(self.missing) > MISSING else ""
        return f"{self.percent:5.1f} %  {self.path}" + (f"  without {named}{rest}" if named else "")


def paths(patterns: tuple[str, ...] = MODULES) -> list[str]:
    """The modules that have a floor; every pattern names one at least."""
    return [path for pattern in patterns for path in matching(pattern)]


def matching(pattern: str) -> list[str]:
    """The modules of a pattern."""
    matched = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if path.name != "__init__.py")
    if not matched:
        raise SystemExit(f"coverage: no module is called {pattern}")
    return matched


def row(pattern: str, report: list[Covered]) -> str:
    """A line of the page's table: how many modules a pattern has, and the share of the one that is covered least."""
    shares = [covered.percent for covered in report if covered.path in matching(pattern)]
    return f"| `{pattern}` | {len(shares)} | {int(min(shares))}% |"


def committed() -> dict[str, int]:
    """The shares that the page has, by pattern (percent)."""
    return {
        pattern: int(share) for pattern, share in re.findall(r"^\| `([\w/*.]+\.py)` \| \d+ \| (\d+)% \|$", PAGE.read_text(), re.MULTILINE)
    }


def write(report: list[Covered]) -> None:
    """Put the shares into the page's table."""
    text = PAGE.read_text()
    for pattern in MODULES:
        text = re.sub(rf"^\| `{re.escape(pattern)}` \|.*$", row(pattern, report), text, flags=re.MULTILINE)
    PAGE.write_text(text)


def report_of(data: dict[str, Any], wanted: list[str]) -> list[Covered]:
    """The modules of coverage's own JSON report; one that no test imported has no line that ran."""
    files = {str(Path(name).resolve().relative_to(ROOT)): found for name, found in data["files"].items()}
    return [
        Covered(path, files[path]["summary"]["percent_covered"], tuple(files[path]["missing_lines"]))
        if path in files
        else Covered(path, 0.0, ())
        for path in wanted
    ]


def measure(tests: tuple[str, ...] = TESTS, patterns: tuple[str, ...] = MODULES) -> list[Covered]:
    """Run the tests; what they run of each of the modules. Ends the program when a test fails.

    Other modules are not traced, since that takes long.
    """
    wanted = paths(patterns)
    # A run of the tests that calls this is none of this run's business, nor is which of its workers does.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_", "COV_"))}
    with tempfile.TemporaryDirectory() as folder:
        data, output = f"--data-file={folder}/data", Path(folder) / "report.json"
        python = [sys.executable, "-m", "coverage"]
        modules = ",".join(str(ROOT / path) for path in wanted)
        run = [*python, "run", data, f"--include={modules}", "--append"]
        pytest = ["-m", "pytest", "-q", "-n0"]
        runs = [[*run, "--concurrency=thread,greenlet", *pytest, *tests, f"--ignore-glob=*/{REAL_THREADS}"]]
        if stress := [str(path) for test in tests for path in sorted((ROOT / test).rglob(REAL_THREADS))]:
            runs.append([*run, "--concurrency=thread", *pytest, *stress])
        if any(subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode for words in runs):
            raise SystemExit("coverage: the tests fail")
        subprocess.run([*python, "json", "-q", data, "-o", str(output)], cwd=ROOT, env=environment, check=True)
        return report_of(json.loads(output.read_text()), wanted)


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="scripts/coverage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table of docs/quality.md")
    words = parser.parse_args()
    report = measure()
    if words.write:
        write(report)
    print("\n".join(str(covered) for covered in report))
    if low := [covered.path for covered in report if not covered.fine]:
        raise SystemExit(f"coverage: below {FLOOR:g} %: {', '.join(low)}")


if __name__ == "__main__":
    main()
