"""Which versions of Python work is said in four places: they say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_pythons_are_those_that_the_package_accepts_and_the_workflow_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    page = (ROOT / "docs" / "compatibility.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| Python | "))
    named = re.findall(r"\b3\.\d+\b", row.split("|")[2])
    assert named == ["3.11", "3.12", "3.13", "3.14"]
    assert [word.rpartition(" ")[2] for word in project["classifiers"] if " :: Python :: 3." in word] == named
    assert project["requires-python"] == ">=3.11,<3.15"
    assert workflow["jobs"]["fast"]["strategy"]["matrix"]["python"] == named
