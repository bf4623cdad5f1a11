"""The command: ``scripts/simulate-stream``. Runs worlds by their seeds, replays one, shortens its faults, plants errors."""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tests.simulation.faults import Fault
from tests.simulation.minimise import minimised
from tests.simulation.page import ROOT, planted, write_planted, write_totals
from tests.simulation.planted import PLANTED, can_show
from tests.simulation.totals import Totals
from tests.simulation.trace import digest, lines
from tests.simulation.twice import parting
from tests.simulation.world import Outcome, World
from tests.support.virtual_time.standins import replaced

TELL_SECONDS: Final = 60.0
MOST_SEEDS: Final = 1_000
"""In so many worlds a planted error must be found."""


def run_seed(seed: int, faults: list[Fault] | None = None, then: Callable[[World], None] | None = None) -> Outcome:
    """One world, and something that is done with it when it is over.

    Garbage is collected when it is over and not while it runs: what is left of a program would end at another place in every run.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        world = World(seed, faults)
        outcome = world.run()
        if then is not None:
            then(world)
        del world
        gc.collect(0)
    finally:
        if collects:
            gc.enable()
    return outcome


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


def main() -> int:
    """The command's words; how many worlds broke an invariant decides the exit code."""
    words = argparse.ArgumentParser(prog="scripts/simulate-stream", description=__doc__)
    words.add_argument("--seed", type=int, help="run this one, and print its faults")
    words.add_argument("--seeds", default="0..100", help="run these: FIRST..LAST, the last one not included")
    words.add_argument("--minimise", action="store_true", help="of each seed that breaks an invariant, look for fewer faults that do")
    words.add_argument("--faults", help="only these of the seed's faults, by their numbers: 0,3,4")
    words.add_argument("--plant", choices=sorted(PLANTED), help="put this error into the code first")
    words.add_argument("--write", action="store_true", help="plant each error, and write to docs/simulation.md in which seed it is found")
    words.add_argument("--record", action="store_true", help="write to docs/simulation.md, once a minute, what the seeds came to")
    words.add_argument("--first", action="store_true", help="stop at the first seed that breaks an invariant")
    words.add_argument("--digests", action="store_true", help="print the digest of each seed's course, and nothing else")
    words.add_argument("--backwards", action="store_true", help="the last seed first")
    words.add_argument("--trace", type=Path, help="write the last seed's course, a line for each thing that happened")
    words.add_argument("--parting", type=int, metavar="SEED", help="run this seed in two processes, and print where their courses part")
    words.add_argument("--quiet", action="store_true", help="no line for each broken seed, only the totals")
    given = words.parse_args()
    if given.write:
        found = planted()
        for kind in [given.plant] if given.plant else PLANTED:
            found[kind] = found_in(kind)
            write_planted(found)
        return 0
    if given.parting is not None:
        where = parting(given.parting)
        print(where or "the courses are the same")
        return 1 if where else 0
    gc.freeze()  # what is loaded by now stays until the end
    with replaced(PLANTED[given.plant]() if given.plant else []):
        return _digests(given) if given.digests else _run(given)


def _digests(given: argparse.Namespace) -> int:
    for seed in _seeds(given):
        run_seed(seed, then=lambda world: print(world.seed, digest(world)))
    return 0


def found_in(kind: str) -> int:
    """The first seed in which a planted error breaks an invariant that holds without it; -1 where none does."""
    for seed in range(MOST_SEEDS):
        world = World(seed)
        if not can_show(kind, seed, world.fleet.migrations, world.faults):
            continue
        with replaced(PLANTED[kind]()):
            problems = run_seed(seed).problems
        if problems and not run_seed(seed).problems:
            print(f"{kind}: seed {seed}: {problems[0]}", flush=True)
            return seed
    return -1


def _run(given: argparse.Namespace) -> int:
    seeds = _seeds(given)
    totals, told = Totals(seeds[0]), time.monotonic()
    for seed in seeds:
        faults = World(seed).faults if given.faults is not None else None
        if faults is not None:
            faults = [faults[int(number)] for number in given.faults.split(",") if number]
        outcome = run_seed(seed, faults, partial(_noted, given))
        totals.add(outcome)
        if outcome.problems and not given.quiet:
            if given.minimise:
                fewer = minimised(outcome.faults, lambda some, seed=seed: breaks(seed, some))  # type: ignore[misc]
                outcome = run_seed(seed, fewer)
            print(report(outcome), flush=True)
        elif given.seed is not None:
            print("\n".join(str(fault) for fault in outcome.faults))
        if outcome.problems and given.first:
            break
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            print(f"... seed {seed}: {totals}", flush=True)
            if given.record:
                write_totals(totals.figures())
    print(totals)
    if given.record:
        write_totals(totals.figures())
    return 1 if totals.broken else 0


def _noted(given: argparse.Namespace, world: World) -> None:
    """What is printed and written of a world beside its problems."""
    if given.trace is not None:
        given.trace.write_text("".join(f"{line}\n" for line in lines(world)))
    if given.seed is not None:
        print(f"digest {digest(world)}, {world.kernel.switches} switches")


def _seeds(given: argparse.Namespace) -> Sequence[int]:
    if given.seed is not None:
        return [given.seed]
    first, _, last = given.seeds.partition("..")
    seeds = range(int(first), int(last or int(first) + 1))
    return seeds[::-1] if given.backwards else seeds


if __name__ == "__main__":
    sys.exit(main())
