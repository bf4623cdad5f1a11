"""``virtflow topics acls`` names what each part uses by that part's own settings."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command import in_process


def test_groups_are_those_of_each_parts_own_file(tmp_path: Path) -> None:
    (tmp_path / "virtflow.toml").write_text('[topics]\nprefix = "lab."\n')
    (tmp_path / "processors.toml").write_text('[processors]\ngroup = "mine"\n')
    (tmp_path / "history.toml").write_text('[history]\ngroup = "kept"\n')
    told = in_process("topics", "acls", "--json", "--config", str(tmp_path))
    found = {(one["for"], one["name"]) for one in json.loads(told.stdout) if one["resource"] == "group"}
    assert {("processors", "mine"), ("processors", "mine-read-back"), ("history", "kept"), ("tap", "virtflow-reader")} <= found
    assert all(one["name"].startswith("lab.") for one in json.loads(told.stdout) if one["resource"] == "topic")


def test_a_switch_counts_for_every_part(tmp_path: Path) -> None:
    (tmp_path / "virtflow.toml").touch()
    (tmp_path / "processors.toml").write_text('[topics]\nprefix = "lab."\n')
    told = in_process("topics", "acls", "--json", "--for", "processors", "--topic-prefix", "given.", "--config", str(tmp_path))
    assert all(one["name"].startswith("given.") for one in json.loads(told.stdout) if one["resource"] == "topic")
