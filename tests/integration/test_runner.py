"""What the test run itself promises: a skip fails in CI, ``--long`` reaches the tests, and whole files go to workers, longest first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.broker import free_ports

ROOT = Path(__file__).resolve().parents[2]
LONG = "from tests.support.long import LONG, length\ndef test() -> None:\n    assert (LONG, length(1, 2)) == {}\n"
SKIPS = {
    "test": "import pytest\ndef test() -> None:\n    pytest.skip('no need')\n",
    "fixture": "import pytest\n@pytest.fixture\ndef absent():\n    pytest.skip('no need')\ndef test(absent) -> None: ...\n",
    "module": "import pytest\npytest.skip('no need', allow_module_level=True)\n",
    "import": "import pytest\npytest.importorskip('there_is_no_such_module')\n",
}


def run(folder: Path, files: Mapping[str, str], *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Pytest over these files, with what holds for every layer."""
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    command += ["--rootdir", str(folder), *options, *(str(folder / name) for name in files)]
    env = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith(("PYTEST_", "VIRTFLOW_"))}
    return subprocess.run(command, cwd=ROOT, env={**env, **variables}, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_skip_fails_in_ci_and_only_there(workers: str, tmp_path: Path) -> None:
    """Whoever skips: a test, a fixture, a whole module; in a worker process too."""
    files = {f"test_{where}.py": text for where, text in SKIPS.items()}
    done = run(tmp_path, files, "-n", workers, "--continue-on-collection-errors", CI="true")
    assert done.returncode == 1
    assert set(re.findall(r"^(?:FAILED|ERROR) .*test_(\w+)\.py", done.stdout, re.MULTILINE)) == set(SKIPS)
    assert run(tmp_path, files, "-n", workers).returncode == 0


@pytest.mark.parametrize(
    ("options", "variables", "told"),
    [
        ([], {}, (False, 1)),
        (["--long"], {}, (True, 2)),
        ([], {"VIRTFLOW_TEST_LONG": "1"}, (True, 2)),
        (["--long", "-n", "1"], {}, (True, 2)),
    ],
    ids=["short", "switch", "variable", "worker"],
)
def test_long_reaches_the_tests(options: Sequence[str], variables: Mapping[str, str], told: tuple[bool, int], tmp_path: Path) -> None:
    done = run(tmp_path, {"test_it.py": LONG.format(told)}, *options, **variables)
    assert done.returncode == 0, done.stdout


def test_a_file_stays_with_one_worker(tmp_path: Path) -> None:
    """Its tests share what it makes."""
    files = {
        f"test_{name}.py": "import pytest\n@pytest.mark.parametrize('n', range(5))\ndef test(n: int) -> None: ...\n" for name in "abcd"
    }
    said = run(tmp_path, files, "-n", "2", "-v").stdout
    workers = re.findall(r"^\[(gw\d)\].* PASSED .*test_(\w)\.py", said, re.MULTILINE)
    assert len(workers) == 20
    assert len(set(workers)) == len(files)
    assert len({worker for worker, _ in workers}) == 2


def test_a_port_is_given_once() -> None:
    """Not even to another process, although nobody listens on it yet."""
    ours = free_ports(200)
    assert len(set(ours)) == 200
    code = f"from tests.support.broker import free_ports\nassert not set(free_ports(300)) & set({ours})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
