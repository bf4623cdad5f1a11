"""The bill of materials names what the lock file pins and what the fleet page has of others, each with its hashes, and is the same each time: with ``--long`` alone."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tools.vendored import pinned

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-producer.lock"])
def test_the_bill_names_what_the_lock_pins(lock: str, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("first.json", "second.json")]
    for file in files:
        subprocess.run([ROOT / "scripts" / "sbom", file, lock], check=True, capture_output=True)
    assert files[0].read_bytes() == files[1].read_bytes()
    bill = json.loads(files[0].read_text())
    locked = set(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / lock).read_text(), re.MULTILINE))
    vendored = {(each.name, each.version) for each in pinned()}
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "virtflow"
    assert {(each["name"], each["version"]) for each in bill["components"]} == locked | vendored
    references = [reference for each in bill["components"] for reference in each.get("externalReferences", [each])]
    assert all(reference["hashes"] for reference in references)
