"""What Prometheus' HTTP service discovery is told: the exporters of all shards, or this one alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from virtflow.exporter.shard import Shard
from virtflow.schemas.errors import SettingError

ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")
"""A host, with a port or without: as in the header ``Host``, and in the setting."""
_SETTING: Final = "exporter.targets"

TargetGroup = dict[str, object]
"""``targets`` and ``labels``, as Prometheus wants them."""


def checked_targets(targets: Sequence[str], shard: Shard) -> tuple[str, ...]:
    """The addresses of all shards; raises ``SettingError`` where they are none, or can't be dealt to the shards."""
    for target in targets:
        if not ADDRESS.fullmatch(target):
            raise SettingError(origin="settings", key=_SETTING, value=target, why="is no address", fix="write HOST:PORT")
    if len(targets) % shard.of:
        why, fix = f"are {len(targets)} addresses for {shard.of} shards", "name as many for each shard, those of 1 to n in turn"
        raise SettingError(origin="settings", key=_SETTING, value=",".join(targets), why=why, fix=fix)
    return tuple(targets)


def target_groups(targets: Sequence[str], shard: Shard, host: str, listen: str) -> list[TargetGroup]:
    """One group for each target. Without ``targets`` it is this exporter, as the client reached it: the header ``Host``, else ``listen``."""
    if not targets:
        own = host if ADDRESS.fullmatch(host) else listen
        return [_group(own, shard.number, shard.of)]
    return [_group(target, place % shard.of + 1, shard.of) for place, target in enumerate(targets)]


def _group(target: str, number: int, of: int) -> TargetGroup:
    return {"targets": [target], "labels": {"__meta_virtflow_shard": str(number), "__meta_virtflow_shards": str(of)}}
