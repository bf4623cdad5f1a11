"""A seed is one world: two processes in which Python's hashes differ, and which run the seeds in opposite orders, see the same course."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.simulation.run import run_seed
from tests.simulation.trace import digest, first_difference
from tests.simulation.twice import different
from tests.support.long import length
from tests.support.virtual_time.kernel import FOREVER, Kernel
from tests.support.virtual_time.standins import replaced

SEEDS: Final = length(6, 500)
ASKED: Final = length(2, 50)


def test_two_runs_of_a_seed_take_the_same_course() -> None:
    assert different(0, SEEDS) == [], "scripts/simulate-stream --parting SEED shows where two runs part"


def test_the_place_is_named_where_two_courses_part() -> None:
    assert not first_difference(["a", "b"], ["a", "b"])
    assert first_difference(["a", "b"], ["a", "c"]).splitlines()[-3:] == ["  a", "- b", "+ c"]
    assert first_difference(["a", "b"], ["a"]).endswith("- b\n+ (over)")


def test_whoever_can_go_on_is_woken() -> None:
    """Where all that wait are asked each time whether they can, nothing is otherwise."""
    wait = Kernel.wait

    def asked(self: Kernel, ready: Callable[[], bool] | None, until: float = FOREVER, among: Any = None) -> bool:  # noqa: ANN401, not used
        del among
        return wait(self, ready, until)

    def digests() -> list[str]:
        found: list[str] = []
        for seed in range(ASKED):
            run_seed(seed, then=lambda world: found.append(digest(world)))
        return found

    woken = digests()
    with replaced([(Kernel, "wait", asked)]):
        assert digests() == woken
