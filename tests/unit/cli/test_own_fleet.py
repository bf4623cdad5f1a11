"""A fleet that `virtflow top` reads itself, with a source of the test's own: what is asked when, and what is said where nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests.support.fleet_samples import busy, lasting
from tests.support.loggers import loggers_kept
from tests.support.processors import eventually
from tests.support.vm_samples import status
from virtflow.cli.top import own_fleet
from virtflow.cli.top.own_fleet import OwnFleet
from virtflow.exporter.service import Exporter
from virtflow.runtime.lifecycle import Stop
from virtflow.runtime.sections.guest import Guest
from virtflow.runtime.settings import Exporter as Section
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError, InputError, SettingError

FIX: Final = "look"
ASKED: Final = {"fleet": "fleet", "vms": "vms?sort=name"}


class Still:
    """A source that brings nothing, or fails."""

    topics = ()

    def __init__(self, missing: str = "", error: Exception | None = None) -> None:
        """``missing`` is why the fleet is unknown; ``error`` ends it."""
        self.why = missing
        self._error = error

    def missing(self) -> str:
        """Why the fleet is unknown."""
        return self.why

    async def run(self) -> None:
        """Until it is cancelled."""
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()


class Reading:
    """What feeds the exporter; it keeps what it was given."""

    def __init__(self, source: Still | None = None, error: Exception | None = None) -> None:
        """``error`` keeps it from beginning."""
        self.settings: Settings | None = None
        self.exporter: Exporter | None = None
        self.left = False
        self._source = source
        self._error = error

    @contextmanager
    def __call__(self, settings: Settings, exporter: Exporter, stop: Stop) -> Iterator[Any]:
        """Gives the source."""
        del stop
        self.settings, self.exporter = settings, exporter
        if self._error is not None:
            raise self._error
        exporter.take(lasting([status("node-1"), busy(1, 0)]))
        try:
            yield self._source
        finally:
            self.left = True


@contextmanager
def read(reading: Reading, settings: Settings | None = None) -> Iterator[OwnFleet]:
    with loggers_kept():
        fleet = OwnFleet(settings or Settings(), reading, "the test", FIX).start()
        try:
            yield fleet
        finally:
            assert fleet.close()
            assert reading.left


def test_it_answers_as_the_api_does() -> None:
    with read(Reading()) as fleet:
        answers = fleet.all(ASKED)
    assert answers["fleet"]["vms"] == 1
    assert [vm["name"] for vm in answers["vms"]["items"]] == ["vm-00001"]


def test_errors_of_the_api_are_raised() -> None:
    with read(Reading()) as fleet, pytest.raises(InputError, match="sort='bogus' is not allowed"):
        fleet.all({"vms": "vms?sort=bogus"})


def test_rates_come_with_the_next_sample() -> None:
    reading = Reading()
    with read(reading) as fleet:
        assert fleet.all(ASKED)["vms"]["items"][0]["cpu_cores"] is None
        assert reading.exporter is not None
        reading.exporter.take(lasting([busy(1, 1)]))
        fleet.settle()
        assert fleet.all(ASKED)["vms"]["items"][0]["cpu_cores"] == pytest.approx(0.05)


def test_it_shows_the_whole_fleet_and_asks_no_guest() -> None:
    """Whatever the settings of the exporter and the producer of this machine are; nothing of theirs is written."""
    theirs = Section(shard="1/2", fleet_page=False, keep_last=True, read_back_seconds=33.0, history_url="http://h:1")
    reading = Reading()
    with read(reading, Settings(exporter=theirs, guest=Guest(enabled=True))):
        assert reading.settings is not None
        assert reading.settings.exporter == Section(read_back_seconds=33.0)
        assert reading.settings.guest == Guest()


def test_a_fleet_that_stays_unknown_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one reason; a reason that changes is waited for anew."""
    monkeypatch.setattr(own_fleet, "PATIENCE_SECONDS", 0.0)
    with (
        read(Reading(Still("reading back"))) as fleet,
        pytest.raises(EnvironmentProblemError, match="fleet the test: reading back; look"),
    ):
        fleet.settle()


@pytest.mark.parametrize("error", [SettingError(origin="o", key="k", value="v", why="w", fix="f"), KeyError("defect")])
def test_what_keeps_it_from_beginning_is_raised(error: Exception) -> None:
    """As it is: a defect is told as one."""
    with loggers_kept(), pytest.raises(type(error)):
        OwnFleet(Settings(), Reading(error=error), "the test", FIX).start()


def test_a_reading_that_ends_is_said() -> None:
    """To whoever asks next, in one line."""

    def said(fleet: OwnFleet) -> str:
        try:
            fleet.all(ASKED)
        except InputError as error:
            return str(error)
        return ""

    with read(Reading(Still(error=KeyError("defect")))) as fleet:
        eventually("its end is said", lambda: said(fleet) == "the test: reading has ended: KeyError('defect')")
