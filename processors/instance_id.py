"""Whether this process's name in its group is still its own.

A static member's name is what the broker deals partitions by: a second process of the same name takes the first one's place, which
hears of it at its next heartbeat, joins again, and takes the place back; so they would go on, each handling what the other has not
committed. The Java client is told apart by the broker (``FENCED_INSTANCE_ID``); ours does not send its name with its heartbeats, so
we look ourselves: the broker gives whoever takes a place a new member id, so who finds another id in its place when it is to join
again was replaced while it was alive, and ends. The one that came last stays, which is what a restart on another machine needs.
Source: KIP-345. What the broker tells of a member beside its id (client id, host) stays that of the first one, and proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from virtflow.runtime.kafka import ClientSettings, client_settings
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import StopForGoodError

ANSWER_SECONDS: Final = 5.0

_LOG: Final = logging.getLogger("virtflow.processors")

Members = Callable[[], dict[str, str]]
"""Asks the broker who is in the group: each static member's id by its name. Blocks; raises ``KafkaException`` where there is no answer."""


class NameTakenError(StopForGoodError):
    """Another process has this one's name in the group, and now its partitions."""


def instance_of(settings: Settings) -> str:
    """This process's name in the group."""
    return settings.processors.instance or socket.gethostname()


class Fence:
    """Looks at the group whenever this process has joined it, and whenever it is to join it again."""

    def __init__(self, settings: Settings, members: Members | None = None) -> None:
        """Asks nobody yet; ``members`` is for tests."""
        self._instance = instance_of(settings)
        self._group = settings.processors.group
        self._members = members or (lambda: _members(settings))
        self._mine = ""
        self._learning: asyncio.Task[None] | None = None

    def joined(self) -> asyncio.Task[None]:
        """Partitions were assigned: whoever is in our place now is we. Nobody need wait for the answer; none leaves it open."""
        self._mine = ""
        self._learning = asyncio.create_task(self._learn())
        return self._learning

    async def check(self) -> None:
        """Raises ``NameTakenError`` where another process has taken our place; a broker that does not answer proves nothing."""
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
            _LOG.info("can't see who is in group %s: %s", self._group, str(error) or "no answer")
            return {}


def _members(settings: Settings, make: Callable[[ClientSettings], Any] = AdminClient) -> dict[str, str]:
    admin = make(client_settings(settings))
    asked: dict[str, Any] = admin.describe_consumer_groups([settings.processors.group], request_timeout=ANSWER_SECONDS)
    found = asked[settings.processors.group].result(2 * ANSWER_SECONDS)
    return {one.group_instance_id: one.member_id for one in found.members if one.group_instance_id}
