"""Runs seeds a second time, in another process in which hashes are others and the seeds come in another order, to see that nothing differs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.simulation.trace import first_difference

ROOT: Final = Path(__file__).resolve().parents[2]
HASH_SEEDS: Final = ("1", "4021")


def started(hash_seed: str, *words: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT / '.types'}:{ROOT}"}
    command = [sys.executable, "-m", "tests.simulation.run", *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def digests(hash_seed: str, first: int, last: int, *words: str) -> dict[int, str]:
    """The digests of worlds from ``first`` on, ``last`` not included, as another process finds them."""
    running = started(hash_seed, "--seeds", f"{first}..{last}", "--digests", *words)
    output, _ = running.communicate()
    if running.returncode:
        raise RuntimeError(f"worlds {first} to {last} could not be run: {output}")
    return {int(seed): digest for seed, digest in (line.split() for line in output.splitlines())}


def different(first: int, last: int) -> list[int]:
    """The seeds of which two runs differ."""
    one, other = (digests(seed, first, last, *words) for seed, words in zip(HASH_SEEDS, ((), ("--backwards",)), strict=True))
    assert one.keys() == other.keys() == set(range(first, last))
    return [seed for seed, digest in one.items() if other[seed] != digest]


def parting(seed: int) -> str:
    """Where two runs of a seed part first, in words; "" where they do not."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / number for number in HASH_SEEDS]
        for hash_seed, file in zip(HASH_SEEDS, files, strict=True):
            running = started(hash_seed, "--seeds", f"{seed}..{seed + 1}", "--quiet", "--trace", str(file))
            running.communicate()
        one, other = (file.read_text().splitlines() for file in files)
        return first_difference(one, other)
