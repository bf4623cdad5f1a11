"""The page about the tests' own quality, and the tool behind it: which mutants there are, and which rooms they are made in."""

from __future__ import annotations

import pytest

from tools.mutate import PAGE, ROOMS, ROOT, Score, committed, matching, mutants_of, mutated, row

MODULE = """def most(values: list[int | None], least: int = 1) -> int:
    if least < 2 and not values:
        return 0
    return len(values) + least
"""


def test_mutants_change_what_is_evaluated_and_nothing_else() -> None:
    """Numbers, comparisons, conditions, arithmetic; no annotation, although ``|`` and ``+`` are both operators."""
    found = list(mutants_of("m.py", MODULE))
    assert {(mutant.operator, mutant.line) for mutant in found} >= {
        ("NumberReplacer", 1),
        ("ReplaceComparisonOperator_Lt_LtE", 2),
        ("ReplaceAndWithOr", 2),
        ("ReplaceUnaryOperator_Delete_Not", 2),
        ("ReplaceBinaryOperator_Add_Sub", 4),
    }
    texts = [mutated(mutant, MODULE) for mutant in found]
    assert MODULE not in texts
    assert all("int | None" in text for text in texts)


@pytest.mark.parametrize("room", ROOMS)
def test_the_page_has_a_score_at_or_above_the_floor(room: str) -> None:
    assert committed()[room] >= ROOMS[room].floor > 0.5


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_names_modules_and_tests_that_are_there(room: str) -> None:
    """What names none raises."""
    assert all(path.endswith(".py") for path in matching(ROOT, ROOMS[room].modules))
    assert matching(ROOT, ROOMS[room].tests)


def test_the_page_has_no_other_rooms() -> None:
    assert set(committed()) == set(ROOMS)
    line = row("schemas", Score(10, 4, []))
    assert line.startswith("| `schemas` | 10 | 4 | 100% |")
    assert "scripts/mutate" in PAGE.read_text()
