"""Detects another process that uses this one's instance id (static membership) in the consumer group.

The broker assigns partitions to static members by their instance id. A second process with the same id replaces the first one. The first
one learns this at its next heartbeat, joins again and replaces the second one: without a check both would continue like this, each handling
the messages that the other one has not committed. The broker fences a Java client (``FENCED_INSTANCE_ID``); this client does not send its
instance id with heartbeats, so the check is made here: the broker gives each process that joins a new member id. A process that
finds another member id under its instance id when it has to join again was replaced while it was running, and ends. The newest process
continues, which is what a restart on another machine needs. Source: KIP-345. The other fields that the broker reports of a member (client
id, host) remain those of the first process, and prove nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from virtflow.runtime.kafka.clients import ClientSettings, client_settings
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import StopForGoodError

ANSWER_SECONDS: Final = 5.0

_LOG: Final = logging.getLogger("virtflow.processors")

Members = Callable[[], dict[str, str]]
"""Asks the broker for the group's static members: member ids by instance id. Blocks; raises ``KafkaException`` without an answer."""


class NameTakenError(StopForGoodError):
    """Another process has joined with this one's instance id and has its partitions."""


def instance_of(settings: Settings) -> str:
    """This process's instance id in the group."""
    return settings.processors.instance or socket.gethostname()


class Fence:
    """Checks the group's members after this process has joined it, and before it joins again."""

    def __init__(self, settings: Settings, members: Members | None = None) -> None:
        """No request is made yet; ``members`` is for tests."""
        self._instance = instance_of(settings)
        self._group = settings.processors.group
        self._members = members or (lambda: static_members(settings))
        self._mine = ""
        self._learning: asyncio.Task[None] | None = None

    def joined(self) -> asyncio.Task[None]:
        """Partitions were assigned: the member id under our instance id is ours. Need not be awaited; it may stay unknown."""
        self._mine = ""
        self._learning = asyncio.create_task(self._learn())
        return self._learning

    async def check(self) -> None:
        """Raises ``NameTakenError`` when another process has replaced this one; a broker that does not answer proves nothing."""
        if not self._mine:
            return
        if (await self._listed()).get(self._instance, self._mine) != self._mine:
            raise NameTakenError(
                f"another process has joined group {self._group} under the same name {self._instance!r} and has taken the partitions; "
                "this one ends for good: give each its own processors.instance"
            )

    async def _learn(self) -> None:
        self._mine = (await self._listed()).get(self._instance, "")

    async def _listed(self) -> dict[str, str]:
        try:
            return await asyncio.to_thread(self._members)
        except (KafkaException, TimeoutError) as error:
            _LOG.info("can't list the members of group %s: %s", self._group, str(error) or "no answer")
            return {}


def static_members(settings: Settings, make: Callable[[ClientSettings], Any] = AdminClient) -> dict[str, str]:
    """The group's static members as the broker lists them, as ``Members`` says; ``make`` builds the client."""
    admin = make(client_settings(settings))
    asked: dict[str, Any] = admin.describe_consumer_groups([settings.processors.group], request_timeout=ANSWER_SECONDS)
    found = asked[settings.processors.group].result(2 * ANSWER_SECONDS)
    return {one.group_instance_id: one.member_id for one in found.members if one.group_instance_id}
