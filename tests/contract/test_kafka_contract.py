"""The in-memory broker does what a real one does: the suite that also runs on one, in the layer integration."""

from __future__ import annotations

import pytest

from tests.support.kafka_contract import administration, groups, lost_ends, reading, writing
from tests.support.kafka_contract.bus import Bus
from tests.support.kafka_contract.memory_bus import MemoryBus


@pytest.fixture
def bus() -> Bus:
    """One of each test's own."""
    return MemoryBus()


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
