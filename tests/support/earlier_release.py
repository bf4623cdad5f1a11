"""The release before this one, as its commit has it: its programs run beside today's, by the same Python and its packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.doc_blocks import ROOT

TAGS: Final = ("v[0-9]*", "[0-9]*")
SUBJECT: Final = "^release [0-9]"
"""How the commit of a release is called, where it has no tag."""


class EarlierRelease:
    """``inside`` goes before a command of this test run, which is then that of the release, in a checkout of it."""

    def __init__(self, folder: Path) -> None:
        """Unpack it into ``folder``; fails where this checkout's history does not reach back to it."""
        self.commit: Final = _commit()
        self.tree: Final = folder / self.commit[:12]
        self.tree.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", ROOT, "archive", self.commit], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", self.tree], input=archive, check=True)
        modules = folder / "modules"
        modules.mkdir()
        (modules / "virtflow").symlink_to(self.tree)
        self.inside: Final = ("env", "-C", str(self.tree), f"PYTHONPATH={modules}:{self.tree}")
        found = self.run("-c", "import virtflow.cli.main as main; print(main.__file__)").stdout.strip()
        assert Path(found) == modules / "virtflow/cli/main.py"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Python with the release's modules, to its end."""
        command = [*self.inside, sys.executable, *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


def _commit() -> str:
    """The newest release before what is checked out."""
    tags = _git("tag", "--list", *TAGS, "--no-contains", "HEAD", "--merged", "HEAD", "--sort=-creatordate").split()
    found = _git("rev-parse", f"{tags[0]}^{{commit}}") if tags else _git("log", "-1", "--format=%H", f"--grep={SUBJECT}", "HEAD~")
    assert found.strip(), "there is no release in this checkout's history"
    return found.strip()


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True, text=True).stdout
