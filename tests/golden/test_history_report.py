"""The capacity report's text: by filesystem as a table, and the warnings of any capacity report, line for line.

To write them anew after a change that is meant, copy what the failure shows.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import in_process
from tests.support.history_guests import MONTH, month

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    month(folder)
    return folder


def reported(path: Path, *words: str) -> tuple[str, str]:
    env = {"VIRTFLOW_HISTORY_HOURLY_DAYS": "36500"}
    done = in_process("history", "report", "capacity", "--month", MONTH, "--history", str(path), *words, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("by", ["filesystem", "vm"])
def test_the_report_is_the_expected_text(path: Path, by: str) -> None:
    """Whatever a row is, the same filesystems are warned of."""
    out, warned = reported(path, "--by", by)
    assert warned == (DATA / "history-report.warnings").read_text()
    assert out == (DATA / f"history-report-{by}.txt").read_text()


def test_a_usage_report_knows_no_filesystems(path: Path) -> None:
    done = in_process("history", "report", "usage", "--month", MONTH, "--history", str(path), "--by", "filesystem")
    assert done.returncode == 2
    assert "history report capacity --by filesystem" in done.stderr
