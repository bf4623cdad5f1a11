"""What the fast layers run of the packages' lines, and what that takes: of this checkout, or of it and an older commit.

    python -m tools.fast_layers                    this checkout
    python -m tools.fast_layers --before COMMIT    the commit as well, from a worktree that is removed again

The layers are those that both have: unit, property and golden. They run in one process, with the packages that are installed here. A line counts
that a person wrote (``tools.structure``) and that this process ran; what a child process runs does not count. Processor time, with that
of coverage itself, is compared and not the time on the wall, which depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.documents import table
from tools.import_picture import PACKAGES, ROOT
from tools.older_commit import checkout_of
from tools.structure import written

LAYERS: Final = ("tests/unit", "tests/property", "tests/golden")


@dataclass(frozen=True, slots=True)
class Fast:
    """One run of the layers: tests by outcome, lines of the packages and how many of them ran, and processor time (seconds)."""

    outcomes: Mapping[str, int]
    lines: int
    ran: int
    seconds: float

    def figures(self) -> dict[str, str]:
        """Each figure by its name."""
        return {
            "tests that pass": str(self.outcomes.get("passed", 0)),
            "tests that fail or are skipped": str(sum(count for outcome, count in self.outcomes.items() if outcome != "passed")),
            "lines that can run": str(self.lines),
            "share of them that ran": f"{self.ran / self.lines:.1%}",
            "processor time of the layers": f"{self.seconds / 60:.1f} min",
        }


def outcomes_of(output: str) -> dict[str, int]:
    """How many tests had which outcome, by the last line of pytest's output; raises ``ValueError`` where it says nothing of tests."""
    last = output.strip().rpartition("\n")[2]
    found = {word.rstrip("s"): int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|xfailed|errors?)\b", last)}
    if not found:
        raise ValueError(f"pytest reported no tests: {last}")
    return found


def lines_of(report: Mapping[str, Any], root: Path) -> tuple[int, int]:
    """Lines that can run in the modules that people write, and how many of them ran, by coverage's own report in JSON."""
    files = {(root / name).resolve(): found["summary"] for name, found in report["files"].items()}
    counted = [files[path.resolve()] for path in written(root) if path.resolve() in files]
    return sum(one["num_statements"] for one in counted), sum(one["covered_lines"] for one in counted)


def measured(root: Path) -> Fast:
    """Run the layers of a checkout."""
    with tempfile.TemporaryDirectory(prefix="virtflow-fast-") as folder:
        data, output = f"--data-file={folder}/data", Path(folder) / "report.json"
        coverage = [sys.executable, "-m", "coverage"]
        sources = ",".join(str(root / package) for package in PACKAGES if (root / package).is_dir())
        # What a test starts is to be of this checkout as well, not of the one that is installed.
        environment = {**os.environ, "PYTHONPATH": str(root / ".types"), "PYTHONDONTWRITEBYTECODE": "1"}
        begin = _child_seconds()
        done = subprocess.run(
            [*coverage, "run", data, f"--source={sources}", "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *LAYERS],
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        seconds = _child_seconds() - begin
        print(done.stdout[-2000:], file=sys.stderr)
        subprocess.run([*coverage, "json", "-q", data, "-o", str(output)], cwd=root, check=True)
        fast = Fast(outcomes_of(done.stdout), *lines_of(json.loads(output.read_text()), root), seconds)
        # At once, since the other checkout may take long.
        print(fast.figures(), file=sys.stderr)
        return fast


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fast_layers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", metavar="COMMIT", help="measure this commit as well")
    words = parser.parse_args()
    columns: list[dict[str, str]] = []
    if words.before:
        with checkout_of(words.before) as place:
            columns.append(measured(place).figures())
    columns.append(measured(ROOT).figures())
    headings = ("", "before", "now") if words.before else ("", "now")
    print(table(headings, [(name, *(column[name] for column in columns)) for name in columns[-1]]))


if __name__ == "__main__":
    main()
