"""Each room's tests kill the share of mutants that they are held to. Takes minutes a room: a layer of ``scripts/test --long``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.mutate import MUTANTS, ROOMS, SEED, copy_of_checkout, measure


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One copy of the checkout for each CPU."""
    found = [tmp_path_factory.mktemp("copy") for _ in range(os.cpu_count() or 1)]
    for copy in found:
        copy_of_checkout(copy)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_enough_mutants_are_killed(room: str, copies: list[Path]) -> None:
    score = measure(room, MUTANTS, SEED, copies)
    assert score.killed >= ROOMS[room].floor, "\n".join(map(str, score.survivors))
