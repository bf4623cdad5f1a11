"""Which metrics are exported, by group and by name."""

from __future__ import annotations

import pytest

from virtflow.exporter.selection import GROUPS, NAMES, UnknownNameError, chosen, collected
from virtflow.schemas.errors import SettingError


def test_everything_is_exported_by_default() -> None:
    """VMs, nodes, and what the exporter counts about itself; nothing of other services."""
    assert chosen([], []) == NAMES
    assert "virtflow_build_info" in NAMES
    assert "virtflow_processors_messages_total" not in NAMES


def test_groups_and_names_can_be_mixed() -> None:
    """What is excluded is out, whoever includes it."""
    assert chosen(["vm_state", "node"], []) == GROUPS["node"] | {"vm_state"}
    assert chosen(["hypervisor"], ["vm_state"]) == GROUPS["hypervisor"] - {"vm_state"}
    assert chosen([], list(GROUPS)) == frozenset()


@pytest.mark.parametrize(("include", "exclude", "key"), [(["vm_stat"], [], "exporter.include"), ([], ["cores"], "exporter.exclude")])
def test_a_wrong_word_in_the_settings_is_named(include: list[str], exclude: list[str], key: str) -> None:
    with pytest.raises(SettingError) as caught:
        chosen(include, exclude)
    assert (caught.value.key, caught.value.value) == (key, (include or exclude)[0])
    assert "virtflow metrics list" in caught.value.fix


def test_a_wrong_word_in_a_scrape_lists_the_groups() -> None:
    with pytest.raises(UnknownNameError, match="groups: core, hypervisor, kvm, guest"):
        collected(["core", "bogus"])
