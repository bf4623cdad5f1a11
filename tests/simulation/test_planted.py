"""Errors that are put into the stream's code on purpose break an invariant, in the worlds that docs/simulation.md names."""

from __future__ import annotations

import json
from typing import Final

import pytest

from tests.simulation.planted import NEEDS, PLANTED
from tests.simulation.run import MOST_SEEDS, PAGE, PLANTED_FILE, page_with, run_seed
from tests.simulation.standins import replaced

FOUND: Final[dict[str, int]] = json.loads(PLANTED_FILE.read_text())


def test_every_planted_error_is_found_soon() -> None:
    assert FOUND.keys() == PLANTED.keys() == NEEDS.keys()
    assert all(0 <= seed < MOST_SEEDS for seed in FOUND.values()), FOUND


def test_the_page_says_where() -> None:
    page = PAGE.read_text()
    assert page_with(page, FOUND) == page


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_error_breaks_an_invariant(kind: str) -> None:
    with replaced(PLANTED[kind]()):
        assert run_seed(FOUND[kind]).problems
