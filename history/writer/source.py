"""What the writer reads from: its consumer, the topics' names, and what tells that the broker may be another one than before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from virtflow.history.writer.offsets import Names
from virtflow.runtime.kafka.clients import ClientSettings, Gather, consumer_settings, probe_settings
from virtflow.runtime.kafka.credentials import Credentials
from virtflow.runtime.kafka.lineage import Alarm, Probe
from virtflow.runtime.settings import Settings

GATHER: Final = Gather(262_144, 500)
"""A row is on disk seconds later anyway."""
SESSION_SECONDS: Final = 12.0
"""How long a member may be away before its partitions go to another, as with the processors. A named one does not leave the group when it
ends, so that it finds its partitions again: gone for good, it leaves them idle for so long (45 s by librdkafka's default)."""
_SESSION: Final[ClientSettings] = {"session.timeout.ms": int(1000 * SESSION_SECONDS), "heartbeat.interval.ms": int(250 * SESSION_SECONDS)}
_ENDS: Final[ClientSettings] = {"enable.partition.eof": True}


class Makers(NamedTuple):
    """What builds the two clients: the one that reads, and the one that asks which topics there are."""

    consumer: Callable[[ClientSettings], Any] = Consumer
    admin: Callable[[ClientSettings], Any] = AdminClient


CLIENTS: Final = Makers()


@dataclass(frozen=True, slots=True)
class Source:
    """The clients of one writer."""

    consumer: Any
    names: Names
    alarm: Alarm
    probe: Callable[[], Probe]
    """A reader of single messages, to be closed after use."""
    renewed: Callable[[], bool] = lambda: False
    """Whether the credentials were changed: another source is to be made."""


def source_of(settings: Settings, names: Names, make: Makers = CLIENTS) -> Source:
    """The source as the settings say; raises ``KafkaException`` where the client can't be made.

    A named member takes its partitions back after a crash without waiting for its own end.
    """
    history, alarm, credentials = settings.history, Alarm(), Credentials(settings.kafka)
    instance = {"group.instance.id": history.instance} if history.instance else {}
    reading = _SESSION | consumer_settings(settings, history.group, GATHER) | _ENDS | instance | {"error_cb": alarm}
    single = probe_settings(settings, history.group)
    return Source(make.consumer(reading), names, alarm, lambda: Probe(lambda: make.consumer(single)), credentials.renewed)
