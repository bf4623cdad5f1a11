"""Targets for Prometheus' HTTP service discovery."""

from __future__ import annotations

import pytest

from virtflow.exporter.api.targets import checked_targets, target_groups
from virtflow.exporter.shard import Shard
from virtflow.schemas.errors import SettingError

LISTEN = "127.0.0.1:9177"


def test_each_shard_is_a_target_with_its_number() -> None:
    found = target_groups(("a:1", "b:1", "c:1", "d:1"), Shard(1, 2), "ignored:1", LISTEN)
    assert found == [
        {"targets": [target], "labels": {"__meta_virtflow_shard": number, "__meta_virtflow_shards": "2"}}
        for target, number in (("a:1", "1"), ("b:1", "2"), ("c:1", "1"), ("d:1", "2"))
    ]


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("exporter-1:9177", "exporter-1:9177"),
        ("[::1]:9177", "[::1]:9177"),
        ("", LISTEN),
        ("evil\n:1", LISTEN),
        ("a b", LISTEN),
        ("x" * 300, LISTEN),
    ],
)
def test_an_exporter_alone_is_named_as_the_client_reached_it(host: str, target: str) -> None:
    assert target_groups((), Shard(2, 3), host, LISTEN) == [
        {"targets": [target], "labels": {"__meta_virtflow_shard": "2", "__meta_virtflow_shards": "3"}}
    ]


@pytest.mark.parametrize(("targets", "why"), [(["a:1", "b:1", "c:1"], "3 addresses for 2 shards"), (["a:1", "b/c"], "is no address")])
def test_addresses_that_fit_no_shards_are_a_wrong_setting(targets: list[str], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        checked_targets(targets, Shard(1, 2))
