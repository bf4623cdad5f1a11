"""The command: ``scripts/simulate-stream``. Runs worlds by their seeds, replays one, shortens its faults, plants errors."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.simulation.faults import Fault
from tests.simulation.minimise import minimised
from tests.simulation.planted import PLANTED
from tests.simulation.standins import replaced
from tests.simulation.world import Outcome, World

ROOT: Final = Path(__file__).resolve().parents[2]
TELL_SECONDS: Final = 60.0


def run_seed(seed: int, faults: list[Fault] | None = None) -> Outcome:
    """One world."""
    return World(seed, faults).run()


def breaks(seed: int, faults: list[Fault]) -> bool:
    """Whether an invariant does not hold with these faults."""
    return bool(run_seed(seed, faults).problems)


def report(outcome: Outcome) -> str:
    """A world that broke an invariant, in words, with the command that runs it again."""
    lines = [f"seed {outcome.seed} at commit {commit()}: {len(outcome.problems)} problems"]
    lines += [f"  {problem}" for problem in outcome.problems]
    lines += ["  faults:", *(f"    {number}: {fault}" for number, fault in enumerate(outcome.faults))]
    lines.append(f"  again: scripts/simulate-stream --seed {outcome.seed}    fewer faults: --minimise")
    return "\n".join(lines)


def commit() -> str:
    """The commit that is checked out."""
    asked = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


class Totals:
    """What a number of worlds came to."""

    def __init__(self) -> None:
        """None yet."""
        self.worlds = self.broken = 0
        self.seconds = 0.0
        self.faults: Counter[str] = Counter()
        self.checked: Counter[str] = Counter()
        self._began = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.worlds += 1
        self.broken += bool(outcome.problems)
        self.seconds += outcome.seconds
        self.faults += outcome.injected
        self.checked += outcome.checked

    def __str__(self) -> str:
        """All of it, in a few lines."""
        took = time.monotonic() - self._began
        pace = self.worlds / took * 60 if took else 0.0
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        checked = ", ".join(f"{kind} {count}" for kind, count in sorted(self.checked.items()))
        return (
            f"{self.worlds} seeds, {self.broken} broken; {self.seconds / 3_600:.2f} simulated hours in {took:.0f} s, {pace:.0f} seeds/minute\n"
            f"faults ({self.faults.total()}): {faults}\nlooked at: {checked}"
        )


def main() -> int:
    """The command's words; how many worlds broke an invariant decides the exit code."""
    words = argparse.ArgumentParser(prog="scripts/simulate-stream", description=__doc__)
    words.add_argument("--seed", type=int, help="run this one, and print its faults")
    words.add_argument("--seeds", default="0..100", help="run these: FIRST..LAST, the last one not included")
    words.add_argument("--minimise", action="store_true", help="of each seed that breaks an invariant, look for fewer faults that do")
    words.add_argument("--faults", help="only these of the seed's faults, by their numbers: 0,3,4")
    words.add_argument("--plant", choices=sorted(PLANTED), help="put this error into the code first")
    words.add_argument("--first", action="store_true", help="stop at the first seed that breaks an invariant")
    words.add_argument("--quiet", action="store_true", help="no line for each broken seed, only the totals")
    given = words.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one thread runs at a time: handing on between two CPUs would cost more
    with replaced(PLANTED[given.plant]() if given.plant else []):
        return _run(given)


def _run(given: argparse.Namespace) -> int:
    totals, told = Totals(), time.monotonic()
    for seed in _seeds(given):
        faults = World(seed).faults if given.faults is not None else None
        if faults is not None:
            faults = [faults[int(number)] for number in given.faults.split(",") if number]
        outcome = run_seed(seed, faults)
        totals.add(outcome)
        if outcome.problems and not given.quiet:
            if given.minimise:
                fewer = minimised(outcome.faults, lambda some, seed=seed: breaks(seed, some))  # type: ignore[misc]
                outcome = run_seed(seed, fewer)
            print(report(outcome), flush=True)
        elif given.seed is not None:
            print("\n".join(str(fault) for fault in outcome.faults))
            print(f"digest {outcome.digest}, {outcome.switches} switches")
        if outcome.problems and given.first:
            break
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            print(f"... seed {seed}: {totals}", flush=True)
    print(totals)
    return 1 if totals.broken else 0


def _seeds(given: argparse.Namespace) -> Iterator[int]:
    if given.seed is not None:
        return iter([given.seed])
    first, _, last = given.seeds.partition("..")
    return iter(range(int(first), int(last or int(first) + 1)))


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of words are walked through in the order of their hashes: with other hashes a seed would be another world.
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation.run", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606, the same program
    sys.exit(main())
