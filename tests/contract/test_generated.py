"""What is generated equals what its source generates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "tools" / "generate.py"), *arguments], capture_output=True, text=True, check=False)


def test_generated_files_are_current() -> None:
    """The schemas, the records' fields and the generated pages are those of this checkout."""
    done = generate("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_finds_a_difference(tmp_path: Path) -> None:
    """The check is not blind: on a copy of the checkout with one line changed it names that file."""
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
    subprocess.run(
        ["cp", "-r", *(str(ROOT / name) for name in ("schemas", "scripts", "tools", "docs", "runtime", "cli", "exporter")), str(copy)],
        check=True,
    )
    page = copy / "docs" / "metrics.md"
    page.write_text(page.read_text() + "\n")
    done = subprocess.run([sys.executable, str(copy / "tools" / "generate.py"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "docs/metrics.md" in done.stdout
