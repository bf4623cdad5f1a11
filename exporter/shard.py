"""One exporter's part of a large fleet: every n-th partition of each topic.

In every topic a VM's messages have its UUID as key, so they are all in partitions with the same number, provided that the topics have
equally many partitions; a node's health has the node's name as key. So exactly one of n shards exports each series.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from virtflow.schemas.errors import SettingError

_SETTING: Final = "exporter.shard"


class Shard(Struct, frozen=True, gc=False):
    """The shard's number, counted from 1, and the number of shards; by default the only one."""

    number: int = 1
    of: int = 1

    def takes(self, partition: int) -> bool:
        """Whether a partition belongs to this shard."""
        return partition % self.of == self.number - 1

    def problem(self, partitions: Mapping[str, int]) -> str:
        """Why these topics, each with its number of partitions, can't be divided among the shards; "" where they can."""
        if self.of == 1 or not partitions:
            return ""
        if len(set(partitions.values())) > 1:
            each = ", ".join(f"{topic} {count}" for topic, count in sorted(partitions.items()))
            return f"topics of VMs differ in their partitions, so that a VM's records are dealt to different shards: {each}"
        topic, count = min(partitions.items())
        return "" if count >= self.of else f"{self.of} shards of {count} partitions: {topic} has none for some of them"


EVERYTHING: Final = Shard()


def shard_of(text: str) -> Shard:
    """The shard that ``2/3`` names, the only one for ""; raises ``SettingError`` where there is no such one."""
    if not text:
        return EVERYTHING
    number, _, of = text.partition("/")
    shard = Shard(int(number), int(of))
    if not 1 <= shard.number <= shard.of:
        why, fix = "is no shard", f"1/{shard.of} is the first and {shard.of}/{shard.of} the last one"
        raise SettingError(origin="settings", key=_SETTING, value=text, why=why, fix=fix)
    return shard
