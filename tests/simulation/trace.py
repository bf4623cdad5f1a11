"""The course of a world: all that happened in it, by which two runs of one seed are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.simulation.world import World

BEFORE: Final = 25
"""Lines that are shown before the first difference."""
ROWS: Final = "rows"


def digest(world: World) -> str:
    """The same for two runs that did the same: whose turn it was, what was sent, written and committed, and where all dice stand."""
    found = blake2b(digest_size=8)
    for entry in world.kernel.trace:
        found.update(repr(entry).encode())
    for state in world.dice():
        found.update(repr(state).encode())
    for name, log in world.tables.logs.items():
        for number, commit in enumerate(log):
            for written in commit.added:
                found.update(repr((name, number, written.file, written.rows.to_pylist())).encode())
    found.update(repr((world.watch.problems, world.kernel.now, world.kernel.switches)).encode())
    return found.hexdigest()


def lines(world: World) -> Iterator[str]:
    """The course in words, a line for each thing that happened."""
    names: dict[object, object] = {0: "driver"}
    for entry in world.kernel.trace:
        match entry:
            case (now, int() as able, int() as number):
                yield f"{now:.6f} turn of {names[number]} ({number}), of {able} that could"
            case (now, "starts", number, name):
                names[number] = name
                yield f"{now:.6f} starts {name} ({number})"
            case (now, what, *more):
                yield f"{now:.6f} {what} {' '.join(map(repr, more))}"
    for number, state in enumerate(world.dice()):
        yield f"dice {number}: {blake2b(repr(state).encode(), digest_size=8).hexdigest()}"


def first_difference(one: Sequence[str], other: Sequence[str]) -> str:
    """Where two courses part, with what was before; "" where they do not."""
    for number, (left, right) in enumerate(zip_longest(one, other, fillvalue="(over)")):
        if left != right:
            before = [f"  {line}" for line in one[max(0, number - BEFORE) : number]]
            return "\n".join([f"the courses part at line {number + 1}:", *before, f"- {left}", f"+ {right}"])
    return ""
