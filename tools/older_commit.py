"""A checkout of an older commit, for figures of the code before and after a change."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


@contextmanager
def checkout_of(commit: str) -> Iterator[Path]:
    """The commit's files in a folder of their own (a worktree), removed again. Raises ``CalledProcessError`` where there is no such commit."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory(prefix="virtflow-before-") as folder:
        place = Path(folder) / "checkout"
        subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)
