"""Which partitions a shard takes, and which topics can't be dealt to shards."""

from __future__ import annotations

import pytest

from virtflow.exporter.shard import Shard, shard_of
from virtflow.schemas.errors import SettingError


@pytest.mark.parametrize("of", [1, 3, 7, 21])
def test_each_partition_belongs_to_one_shard(of: int) -> None:
    """Whatever their number, and no shard has two more than another."""
    shards = [shard_of(f"{number}/{of}") for number in range(1, of + 1)]
    takers = [[shard.number for shard in shards if shard.takes(partition)] for partition in range(21)]
    assert {len(each) for each in takers} == {1}
    assert [sum(each == [shard.number] for each in takers) for shard in shards] == [21 // of] * of


def test_without_a_setting_all_is_taken() -> None:
    """The only shard takes everything, and no topic is a problem to it."""
    assert shard_of("") == Shard(1, 1)
    assert all(map(shard_of("").takes, range(20)))
    assert shard_of("").problem({"a": 1, "b": 2}) == ""


@pytest.mark.parametrize("text", ["0/2", "3/2"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    """With the setting's name and the ones there are."""
    with pytest.raises(SettingError, match=r"exporter\.shard.*2/2"):
        shard_of(text)


def test_topics_that_cannot_be_dealt() -> None:
    """Unequal numbers of partitions split a VM's records; fewer partitions than shards leave shards without any."""
    assert Shard(1, 2).problem({"vm.metrics": 6, "vm.inventory": 6}) == ""
    assert "vm.inventory 4, vm.metrics 6" in Shard(1, 2).problem({"vm.metrics": 6, "vm.inventory": 4})
    assert Shard(1, 6).problem({"vm.metrics": 6, "vm.inventory": 6}) == ""
    assert "7 shards of 6 partitions" in Shard(1, 7).problem({"vm.metrics": 6, "vm.inventory": 6})
    assert Shard(1, 2).problem({}) == ""
