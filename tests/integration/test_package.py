"""The built wheel holds every package and data file, its entry point runs from anywhere, and each extra brings only its own."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "runtime", "producer", "processors", "exporter", "adapter", "history", "node", "cli", "__main__.py")
CENTRE = ("deltalake", "pyarrow", "duckdb", "faust-streaming", "aiohttp", "prometheus-client", "isal", "rich", "aiokafka")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that ``python -m build`` makes of the source distribution, which it makes of the tracked files, as a packager would."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    present = [name for name in tracked if name and (ROOT / name).exists() and not (ROOT / name).is_symlink()]
    archive = subprocess.run(["tar", "-cf", "-", *present], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-xf", "-"], cwd=source, input=archive, check=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(source)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_holds_every_source_and_data_file(wheel: Path) -> None:
    """Nothing of the packages stays behind, and nothing else comes along."""
    names = set(zipfile.ZipFile(wheel).namelist())
    files = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    expected = {f"virtflow/{name}" for name in files if (ROOT / name).exists()}
    packed = {name for name in names if name.startswith("virtflow/")}
    assert packed == expected
    licences = {name.partition("/licenses/")[2] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "exporter/page/static/vendor/uPlot.LICENSE"}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with ``virtflow[producer]`` installed from the wheel."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", f"{wheel}[producer]"], check=True, capture_output=True)
    return folder


def test_entry_point_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """The installed command needs nothing of the checkout."""
    for words in ([installed / "bin" / "virtflow"], [installed / "bin" / "python", "-m", "virtflow"]):
        for asked in ("version", "--version"):
            done = subprocess.run([*words, asked], cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
            assert done.stdout == "virtflow 0.1.0\n"


def test_producer_extra_brings_nothing_of_the_centre(installed: Path, tmp_path: Path) -> None:
    """A hypervisor does not carry the centre's packages, and the producer starts without them."""
    listed = subprocess.run(
        [installed / "bin" / "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    ).stdout.lower()
    present = {line.partition("==")[0] for line in listed.splitlines()}
    assert "libvirt-python" in present
    assert not present.intersection(CENTRE)
    code = "import virtflow.producer.service, virtflow.cli.main"
    subprocess.run([installed / "bin" / "python", "-c", code], cwd=tmp_path, env={}, check=True)
