"""What the in-memory broker is built on holds on a real one: the suite that also runs on it, in the layer contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.broker import Broker
from tests.support.kafka_contract import administration, groups, lost_ends, reading, writing
from tests.support.kafka_contract.broker_bus import BrokerBus
from tests.support.kafka_contract.bus import Bus


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of this file's own: some tests stop it."""
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def bus(running: Broker) -> Iterator[Bus]:
    """With a broker that runs, whatever the test before left."""
    bus = BrokerBus(running)
    yield bus
    bus.ensure_running()


class TestReading(reading.Reading):
    """Partitions that the reader chooses."""


class TestWriting(writing.Writing):
    """Delivery reports and what fails."""


class TestGroups(groups.Groups):
    """Partitions that the group gives."""


class TestAdministration(administration.Administration):
    """Topics."""


class TestLostEnds(lost_ends.LostEnds):
    """Epochs, and an end that is lost."""


class TestAlarms(lost_ends.Alarms):
    """What a client hears when no broker is connected."""
