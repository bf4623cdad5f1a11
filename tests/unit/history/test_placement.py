"""Where a VM was: what is not known is not answered, from the samples or from the roll-ups."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.history_lives import Kept, record, vm_uuid
from tests.support.history_truth import SECOND, Seen
from virtflow.history.maintenance.kept import Kept as Upkept
from virtflow.history.query.placement import where
from virtflow.history.storage.table_schemas import HOURLY, SAMPLES

VM = vm_uuid(1)
START = 1_790_000_000 // 3_600 * 3_600


def moved(folder: Path) -> Kept:
    """A VM that ran on a from 10:00 to 50:00 of the first hour, then on b until 20:00 of the third, with the second hour whole."""
    history = Kept(folder)
    spans = (("a", 600, 3_000), ("b", 3_000, 8_400))
    seen = [
        Seen(round((START + at + 0.123456) * SECOND), node, node, at, 60.0, 1, 1, told={("vm", ""): {}})
        for node, first, last in spans
        for at in range(first, last, 60)
    ]
    history.rolled([[record(VM, each, "web") for each in seen]])
    return history


@pytest.fixture(scope="module")
def with_samples(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """The history of the VM that moved; nothing changes it."""
    return moved(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def rolled_alone(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """The same once its samples have expired; nothing changes it."""
    history = moved(tmp_path_factory.mktemp("rolled"))
    samples = Upkept(history.store.open(SAMPLES))
    samples.commit([], samples.opened.files())
    assert samples.opened.dataset().count_rows() == 0
    return history


QUESTIONS = [(0, ""), (599, ""), (700, "a"), (2_999, "a"), (3_001, "b"), (5_000, "b"), (8_400, "b"), (8_600, ""), (90_000, "")]


@pytest.mark.parametrize(("at", "node"), QUESTIONS)
def test_the_samples_answer(with_samples: Kept, at: float, node: str) -> None:
    """Before the VM was, after it ended, and before it came to another node, nothing is made up."""
    found = where(with_samples.store, with_samples.settings, "web", START + at)
    assert [place.node for place in found] == ([node] if node else [])
    assert {place.source for place in found} <= {"samples"}


@pytest.mark.parametrize(("at", "node"), [(at, "" if at < 3_600 else node) for at, node in QUESTIONS])
def test_without_samples_the_roll_up_answers_what_it_knows(rolled_alone: Kept, at: float, node: str) -> None:
    """In the hour in which the VM moved it does not know; at the ends of its life it does."""
    found = where(rolled_alone.store, rolled_alone.settings, VM, START + at)
    assert [(place.node, place.state) for place in found] == ([(node, "running")] if node else [])
    assert {place.source for place in found} <= {HOURLY.name}


@pytest.mark.parametrize(("silence", "node"), [(180, ["a"]), (240, [])])
def test_a_roll_up_with_a_silence_longer_than_a_word_holds_does_not_know(tmp_path: Path, silence: int, node: list[str]) -> None:
    """As the samples, which do not say where the VM was at its end."""
    history, at = Kept(tmp_path), START + 1_800 + silence - 1
    seen = [Seen((START + at) * SECOND, "a", "a", at + 1, 60.0, 1, 1) for at in range(0, 3_600, 60) if not 1_800 < at < 1_800 + silence]
    history.rolled([[record(VM, each, "web") for each in seen]])
    found = [[place.node for place in where(history.store, history.settings, VM, at)]]
    samples = Upkept(history.store.open(SAMPLES))
    samples.commit([], samples.opened.files())
    found.append([place.node for place in where(history.store, history.settings, VM, at)])
    assert found == [node, node]


@pytest.mark.parametrize("state", [(3, 12), (5, 4)], ids=["paused (postcopy)", "shut off (migrated)"])
def test_where_a_vm_has_left_it_is_not(tmp_path: Path, state: tuple[int, int]) -> None:
    """Also once its samples have expired: all that is known is what a migration left behind on its source."""
    history = Kept(tmp_path)
    seen = [Seen((START + at) * SECOND, "a", "a", at + 1, 60.0, *state) for at in range(0, 3_600, 60)]
    history.rolled([[record(VM, each, "web") for each in seen]])
    found = [where(history.store, history.settings, VM, START + 1_800)]
    for table in (SAMPLES, HOURLY):
        kept = Upkept(history.store.open(table))
        kept.commit([], kept.opened.files())
        found.append(where(history.store, history.settings, VM, START + 1_800))
    assert found == [[], [], []]
