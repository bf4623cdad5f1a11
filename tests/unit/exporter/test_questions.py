"""The API's questions without HTTP: the same answers and the same errors, and when rates are waited for no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import pytest

from tests.support.awaiting import until
from tests.support.fleet_samples import busy, seen_twice, taken, updated
from tests.support.vm_samples import WALL, fleet, status, uuid
from virtflow.exporter.api.answers import Answers
from virtflow.exporter.api.endpoints import BY_NAME
from virtflow.exporter.api.parameters import parse
from virtflow.exporter.api.questions import Questions
from virtflow.exporter.api.updates import Updates
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.views.fleet_view import FleetView
from virtflow.schemas.errors import InputError

VMS = 60
NOW = 12.0


def still() -> float:
    """A clock that stands still."""
    return NOW


def asked_of(
    view: FleetView, now: Callable[[], float] = still, looks: Callable[[], float] = still, missing: str = ""
) -> tuple[Questions, Answers]:
    """``now`` is the clock of whoever waits, ``looks`` the one that says how old the view is."""
    clocks = Clocks(now, lambda: WALL + NOW)
    answers = Answers(view, "run", "0.1.0", lambda: missing)
    return Questions(answers, Updates(view, looks, lambda: missing), clocks), answers


def answer(path: str) -> Any:  # noqa: ANN401, JSON
    questions, _ = asked_of(seen_twice(fleet(), VMS))
    return asyncio.run(questions.answer(path))


@pytest.mark.parametrize(
    ("path", "name", "given", "subject"),
    [
        ("fleet", "fleet", {}, ""),
        ("vms?sort=-cpu&limit=3&filter=&history=cpu_cores", "vms", {"sort": "-cpu", "limit": "3", "history": "cpu_cores"}, ""),
        (f"vms/{uuid(7)}", "vm", {}, uuid(7)),
        ("nodes?sort=-vms", "nodes", {"sort": "-vms"}, ""),
        ("nodes/node%2D1", "node", {}, "node-1"),
        ("migrations", "migrations", {}, ""),
        ("events?limit=5", "events", {"limit": "5"}, ""),
    ],
)
def test_a_path_has_its_endpoints_answer(path: str, name: str, given: dict[str, str], subject: str) -> None:
    _, answers = asked_of(updated(seen_twice(fleet(), VMS), NOW))
    expected = answers.named(name, parse(BY_NAME[name].parameters, given.items()), WALL + NOW, subject)
    assert answer(path) == msgspec.json.decode(msgspec.json.encode(expected))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("vms?sort=bogus", "sort='bogus' is not allowed; allowed: name, node"),
        ("vms?colour=red", "colour='red' is not allowed; allowed: the parameters sort, filter"),
        ("vms/nobody", "there is no vm 'nobody'"),
        ("nodes/nowhere", "there is no node 'nowhere'"),
    ],
)
def test_errors_are_the_apis(path: str, why: str) -> None:
    with pytest.raises(InputError) as error:
        answer(path)
    assert str(error.value).startswith(why)


def test_why_the_fleet_is_not_known_is_told() -> None:
    questions, _ = asked_of(FleetView(fleet()), missing="reading back")
    assert questions.missing() == "reading back"


def test_rates_that_are_known_are_not_waited_for() -> None:
    """The clock stands still, so that waiting would not end."""
    questions, _ = asked_of(seen_twice(fleet(), VMS))
    asyncio.run(asyncio.wait_for(questions.rates(), 20.0))


def seen_once() -> FleetView:
    view = FleetView(fleet())
    taken(view.fleet, [status(), busy(1, 0), busy(2, 0)], 0.0)
    return view


def test_rates_are_waited_for_until_the_next_sample_of_all() -> None:
    """One VM's is not enough; the time does not run out."""
    view, seconds = seen_once(), count(NOW)
    questions, answers = asked_of(view, looks=lambda: next(seconds))

    async def run() -> None:
        waiting = asyncio.create_task(questions.rates())
        await until(lambda: len(view.vms()) == 2, "the first look")
        taken(view.fleet, [busy(1, 1)], NOW)
        await until(lambda: bool(view.vms()[0].before), "a look at the first one's next sample")
        assert not waiting.done()
        taken(view.fleet, [busy(2, 1)], NOW)
        await asyncio.wait_for(waiting, 20.0)

    asyncio.run(run())
    assert [seen.totals.cpu_cores for seen in answers.view.vms()] == [pytest.approx(0.05), pytest.approx(0.1)]


def test_a_sample_that_does_not_come_is_waited_for_two_intervals() -> None:
    """Of ten seconds each, by a clock that goes on by five with each look at it."""
    seconds = count(NOW, 5.0)
    questions, _ = asked_of(seen_once(), now=lambda: next(seconds))
    asyncio.run(asyncio.wait_for(questions.rates(), 20.0))
    assert next(seconds) == NOW + 5 * 5
