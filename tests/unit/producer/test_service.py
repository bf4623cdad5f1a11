"""The grid of rounds: late ones are made up for or left out, never stacked."""

from __future__ import annotations

import pytest

from virtflow.producer.service import Beside, SnapshotBuilder, skipped
from virtflow.producer.source import Round
from virtflow.runtime.settings import Producer, Settings


@pytest.mark.parametrize(
    ("took", "left_out"), [(0.0, 0), (0.8, 0), (1.0, 0), (1.2, 0), (1.5, 0), (1.6, 1), (2.4, 1), (2.5, 1), (2.6, 2), (60.0, 59)]
)
def test_a_round_that_is_half_an_interval_late_begins_at_once_and_later_ones_fall_out(took: float, left_out: int) -> None:
    assert skipped(took * 10.0, 10.0) == left_out


def test_a_host_that_is_renamed_is_one_node_until_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its events have the name of the start as well."""
    monkeypatch.setattr("socket.gethostname", lambda: "old")
    builder = SnapshotBuilder(Settings())
    names = [builder.node_snapshot(Round(1_795_476_243.0, up=True), Beside()).node]
    monkeypatch.setattr("socket.gethostname", lambda: "new")
    names.append(builder.node_snapshot(Round(1_795_476_253.0, up=True), Beside()).node)
    names.append(SnapshotBuilder(Settings()).node_snapshot(Round(1_795_476_263.0, up=True), Beside()).node)
    assert names == ["old", "old", "new"]


@pytest.mark.parametrize(("setting", "recorded", "name"), [("set", "recorded", "set"), ("", "recorded", "recorded"), ("", "", "host")])
def test_the_setting_then_the_recording_then_the_host_name_the_node(
    setting: str, recorded: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    builder = SnapshotBuilder(Settings(producer=Producer(node=setting)))
    assert builder.node_snapshot(Round(1_795_476_243.0, up=True, node=recorded), Beside()).node == name
