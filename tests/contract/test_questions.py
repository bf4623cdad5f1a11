"""A stranger finds things: questions, each answered by a place that the map leads to in two steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.questions import QUESTIONS, Question

ROOT = Path(__file__).resolve().parents[2]
MAP = ROOT / "docs" / "architecture.md"
CRIB = ROOT / "docs" / "where.md"
"""The page of the answers, which is no way to find them by."""


def named_in(page: Path) -> set[Path]:
    """The files and folders that a page names: its links, and paths from the checkout's root in backticks or not."""
    text = page.read_text()
    links = {(page.parent / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target}
    paths = {(ROOT / path).resolve() for path in re.findall(r"`([\w./-]+)`", text) if "/" in path}
    return {place for place in links | paths if place.exists() and place not in {CRIB, ROOT} and place.is_relative_to(ROOT)}


def beside(place: Path) -> set[Path]:
    """What somebody who is there sees: a page's own names, or a folder's content, but not what lies deeper."""
    if place.is_dir():
        return set(place.iterdir())
    return named_in(place) if place.suffix == ".md" else set()


FIRST = named_in(MAP)
SECOND = FIRST.union(*map(beside, FIRST))


def text_of(place: Path) -> str:
    """A file's text, or that of all modules of a folder."""
    return place.read_text() if place.is_file() else "\n".join(path.read_text() for path in sorted(place.glob("*.py")))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.path)
def test_the_map_leads_to_the_answer(question: Question) -> None:
    """The place exists, what answers stands in it, and two steps from the map lead there."""
    place = ROOT / question.path
    assert place.exists()
    assert question.shows in text_of(place)
    assert place in SECOND, question.text


def test_there_are_questions_enough_and_no_two_alike() -> None:
    assert len(QUESTIONS) >= 25
    assert len({question.text for question in QUESTIONS}) == len({question.path for question in QUESTIONS}) == len(QUESTIONS)


def test_two_steps_do_not_lead_everywhere() -> None:
    """What no page of the first step names, in a folder that the map does not name, is not found: the test above is not blind."""
    assert ROOT / "tests" / "golden" / "data" / "exposition.prom" not in SECOND
    assert ROOT / "tests" / "lab" / "test_recovery.py" not in SECOND
