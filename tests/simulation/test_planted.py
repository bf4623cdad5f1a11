"""Errors that are put into the stream's code on purpose break an invariant, in the worlds that docs/simulation.md names."""

from __future__ import annotations

from typing import Final

import pytest

from tests.simulation.page import PAGE, page_with, planted, totals
from tests.simulation.planted import NEEDS, PLANTED
from tests.simulation.run import MOST_SEEDS, run_seed
from tests.support.virtual_time.standins import replaced

FOUND: Final = planted()


def test_every_planted_error_is_found_soon() -> None:
    assert FOUND.keys() == PLANTED.keys() == NEEDS.keys()
    assert all(0 <= seed < MOST_SEEDS for seed in FOUND.values()), FOUND


def test_the_page_has_the_figures() -> None:
    page = PAGE.read_text()
    assert page_with(page, FOUND, totals()) == page


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_error_breaks_an_invariant(kind: str) -> None:
    with replaced(PLANTED[kind]()):
        assert run_seed(FOUND[kind]).problems
