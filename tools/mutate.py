"""Do the fast tests notice when the code is wrong? A sample of small changes (mutants) to the pure modules, each tried against their tests.

    scripts/mutate                 every room, MUTANTS of each; prints who survived
    scripts/mutate schemas         one room
    scripts/mutate --write         also writes the scores to docs/quality.md
    scripts/mutate --before COMMIT schemas
                                   rooms of an older commit, by the same seed and as large a sample; ``BEFORE`` says which it has

A mutant is killed when a test fails. Which mutants are tried depends on the seed and the code only. The checkout is left alone: mutants are
made in copies of it.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Final

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

from tools.older_commit import checkout_of

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "quality.md"
MUTANTS: Final = 30
SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Room:
    """Modules that decide without I/O, the tests that hold them (both as patterns), and the least share of mutants these must kill."""

    modules: Sequence[str]
    tests: Sequence[str]
    floor: float


ROOMS: Final = {
    "schemas": Room(
        ("schemas/order.py", "schemas/ownership.py", "schemas/ranges.py"),
        ("tests/unit/schemas", "tests/unit/exporter/test_migrations.py", "tests/property/test_fleet_order.py"),
        0.85,
    ),
    "schemas/avro": Room(
        ("schemas/avro/codec.py", "schemas/avro/primitives.py", "schemas/avro/schema.py"),
        ("tests/property/test_codec.py", "tests/contract/test_compatibility.py"),
        0.75,
    ),
    "producer/records": Room(("producer/records/*.py",), ("tests/unit/producer", "tests/golden/test_clean.py"), 0.55),
    "producer/hung_calls": Room(("producer/hung_calls/breaker*.py",), ("tests/unit/producer", "tests/property/test_breaker.py"), 0.7),
    "producer/agent": Room(
        tuple(f"producer/agent/{name}.py" for name in ("scheduler", "cache", "backoff", "poll_cycle", "selection", "answers")),
        ("tests/unit/producer/test_guest_*.py", "tests/property/test_guest_*.py"),
        0.6,
    ),
    "processors": Room(
        tuple(f"processors/{name}.py" for name in ("dedup", "normalise", "dead_letters/dead_letter", "guest_agent", "handlers")),
        ("tests/unit/processors", "tests/property/test_normalise.py"),
        0.65,
    ),
    "processors/migrations": Room(
        ("processors/migrations/*.py",), ("tests/unit/processors/test_[cm]*.py", "tests/property/test_migration.py"), 0.6
    ),
    "exporter": Room(
        ("exporter/fleet.py", "exporter/migrations.py", "exporter/selection.py", "exporter/shard.py", "exporter/render/*.py"),
        ("tests/unit/exporter", "tests/property/test_exposition_text.py", "tests/property/test_fleet_order.py"),
        0.7,
    ),
    "history": Room(
        (
            "history/maintenance/rollup.py",
            "history/remote_read/reading/resample.py",
            "history/remote_read/protocol/xor_chunks.py",
            "history/query/resolution.py",
        ),
        ("tests/unit/history", "tests/property/test_history_*.py"),
        0.6,
    ),
}

BEFORE: Final = {
    "schemas": Room(ROOMS["schemas"].modules, ("tests/unit/schemas", "tests/property/test_fleet_order.py"), 0.0),
    "processors": Room(
        tuple(f"processors/{name}.py" for name in ("order", "normalise", "dead_letter", "guest", "step")),
        ("tests/unit/processors", "tests/property/test_normalise.py"),
        0.0,
    ),
    "processors/migrations": Room(
        ("processors/migration*.py", "processors/convergence.py", "processors/job_numbers.py"),
        ("tests/unit/processors/test_[cm]*.py", "tests/property/test_migration.py"),
        0.0,
    ),
    "history": Room(
        tuple(f"history/{name}.py" for name in ("rollup", "grid", "xor", "tiers")),
        ("tests/unit/history", "tests/property/test_history_*.py"),
        0.0,
    ),
}
"""The same code as it was named at commit c18b024, before the packages had rooms, with the tests that it had then."""

OPERATORS: Final = (
    *(f"ReplaceComparisonOperator_{pair}" for pair in ["Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"]),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ["Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"]),
    *(
        f"ReplaceBinaryOperator_{pair}"
        for pair in ["Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "BitOr_BitAnd", "BitAnd_BitOr"]
    ),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ["LShift_RShift", "RShift_LShift"]),
    *(f"ReplaceUnaryOperator_{pair}" for pair in ["USub_UAdd", "Delete_Not"]),
    *["AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"],
    *["ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer", "ZeroIterationForLoop"],
)
"""Of Cosmic Ray's: those that few programs survive unchanged in meaning."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to one module."""

    module: str
    operator: str
    occurrence: int
    line: int

    def __str__(self) -> str:
        """Where it is, and what is changed."""
        return f"{self.module}:{self.line} {self.operator}"


@dataclass(frozen=True, slots=True)
class Score:
    """How a room's sample fared."""

    possible: int
    tried: int
    survivors: Sequence[Mutant]

    @property
    def killed(self) -> float:
        """The share of mutants that a test has noticed."""
        return 1.0 - len(self.survivors) / self.tried


class MutationError(Exception):
    """The tests of a room fail without any mutant."""


def mutants_of(module: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a module, but for those in annotations, which nothing evaluates, and in a class's head, which behaviour seldom shows."""
    tree, left_alone = get_ast(source), set(_left_alone(ast.parse(source)))
    nodes = list(ast_nodes(tree))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        places = (begin for node in nodes for begin, _ in operator.mutation_positions(node))
        yield from (Mutant(module, name, count, place[0]) for count, place in enumerate(places) if tuple(place) not in left_alone)


def _left_alone(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """Every position (line, column) inside of an annotation, a decorator, or what a class is made with (``gc=False``)."""
    for node in ast.walk(tree):
        parts: list[ast.expr | None] = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        parts += getattr(node, "decorator_list", [])
        if isinstance(node, ast.ClassDef):
            parts += [keyword.value for keyword in node.keywords]
        for part in parts:
            if isinstance(part, ast.expr):
                yield from ((part.lineno, column) for column in range(part.col_offset, (part.end_col_offset or 0) + 1))


def mutated(mutant: Mutant, source: str) -> str:
    """The module's text with the change."""
    text: str | None = mutate_code(source, get_operator(f"core/{mutant.operator}")(), mutant.occurrence)
    assert text is not None, mutant
    return text


def copy_of_checkout(folder: Path, root: Path = ROOT) -> None:
    """A checkout's tracked files, as they are in its working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source, target = root / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.exists():
            shutil.copy2(source, target)


def tests_pass(folder: Path, tests: Sequence[str], seconds: float) -> bool:
    """Whether a room's tests pass in a copy of the checkout; what takes too long has failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *matching(folder, tests)]
    environment = {**os.environ, "CI": "true", "PYTHONDONTWRITEBYTECODE": "1", "VIRTFLOW_TEST_PROFILE": "mutation"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def matching(folder: Path, patterns: Sequence[str]) -> list[str]:
    """The files and folders that these patterns name; each names some."""
    found = [sorted(folder.glob(pattern)) for pattern in patterns]
    missing = [pattern for pattern, paths in zip(patterns, found, strict=True) if not paths]
    if missing:
        raise MutationError(f"nothing is called {', '.join(missing)}: the rooms of tools/mutate.py are not those of the checkout")
    return [str(path.relative_to(folder)) for paths in found for path in paths]


def measure(name: str, count: int, seed: int, copies: Sequence[Path], rooms: Mapping[str, Room] = ROOMS) -> Score:
    """Try a sample of a room's mutants, one copy of the checkout to each worker."""
    room = rooms[name]
    sources = {module: (copies[0] / module).read_text() for module in matching(copies[0], room.modules)}
    possible = [mutant for module, source in sources.items() for mutant in mutants_of(module, source)]
    sample = random.Random(f"{seed} {name}").sample(possible, min(count, len(possible)))  # noqa: S311, not a secret
    begin = time.monotonic()
    if not tests_pass(copies[0], room.tests, 600.0):
        raise MutationError(f"{name}: its tests fail without a mutant: {' '.join(room.tests)}")
    limit = 30.0 + 10.0 * (time.monotonic() - begin)
    free: Queue[Path] = Queue()
    for copy in copies:
        free.put(copy)

    def survives(mutant: Mutant) -> bool:
        folder = free.get()
        file, source = folder / mutant.module, sources[mutant.module]
        try:
            file.write_text(mutated(mutant, source))
            return tests_pass(folder, room.tests, limit)
        finally:
            file.write_text(source)
            free.put(folder)

    with ThreadPoolExecutor(len(copies)) as pool:
        survived = list(pool.map(survives, sample))
    return Score(len(possible), len(sample), [mutant for mutant, alive in zip(sample, survived, strict=True) if alive])


def row(name: str, score: Score) -> str:
    """A line of the page's table."""
    return f"| `{name}` | {score.possible} | {score.tried} | {score.killed:.0%} | {ROOMS[name].floor:.0%} |"


def committed() -> dict[str, float]:
    """The scores that the page has, by room."""
    found = re.findall(r"^\| `([\w/]+)` \| \d+ \| \d+ \| (\d+)% \|", PAGE.read_text(), re.MULTILINE)
    return {name: int(share) / 100 for name, share in found}


def write(scores: dict[str, Score]) -> None:
    """Put the scores of these rooms into the page's table."""
    lines = PAGE.read_text().splitlines()
    rows = {f"| `{name}` ": row(name, score) for name, score in scores.items()}
    kept = [next((new for start, new in rows.items() if line.startswith(start)), line) for line in lines]
    PAGE.write_text("\n".join(kept) + "\n")


def main(words: Sequence[str]) -> int:
    """Measure; 1 where a room is below its floor."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description="How many small defects the fast tests notice.")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)} (default all)")
    parser.add_argument("--mutants", type=int, default=MUTANTS, help=f"how many of each room are tried (default {MUTANTS})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"chooses which (default {SEED})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many are tried at a time (default: one per CPU)")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--before", metavar="COMMIT", help=f"measure rooms of this commit, of {', '.join(BEFORE)}")
    given.add_argument("--write", action="store_true", help="write the scores to docs/quality.md")
    chosen = parser.parse_args(words)
    rooms = BEFORE if chosen.before else ROOMS
    if unknown := set(chosen.rooms) - set(rooms):
        parser.error(f"there is no room {', '.join(sorted(unknown))}: choose of {', '.join(rooms)}")
    scores: dict[str, Score] = {}
    checkout: AbstractContextManager[Path] = checkout_of(chosen.before) if chosen.before else nullcontext(ROOT)
    with tempfile.TemporaryDirectory(prefix="virtflow-mutate-") as folder, checkout as root:
        copies = [Path(folder) / str(number) for number in range(chosen.jobs)]
        for copy in copies:
            copy_of_checkout(copy, root)
        for name in chosen.rooms or rooms:
            scores[name] = measure(name, chosen.mutants, chosen.seed, copies, rooms)
            print(row(name, scores[name]), *(f"    survived: {mutant}" for mutant in scores[name].survivors), sep="\n", flush=True)
    if chosen.write:
        write(scores)
    return int(any(score.killed < rooms[name].floor for name, score in scores.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
