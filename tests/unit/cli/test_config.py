"""The sample settings file and the shown settings."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.support.command import in_process
from virtflow.cli.config import SAMPLES, sample_text, toml_value
from virtflow.cli.switches import part_here, settings_switches
from virtflow.runtime.config_files import SECTIONS, SHARED_SECTIONS
from virtflow.runtime.configuration import load, rows
from virtflow.runtime.settings import Settings


def test_sample_loads_back_to_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "sample.toml"
    file.write_text(in_process("config", "sample").stdout)
    assert load(file, {}) == Settings()


def test_sample_has_every_setting_with_its_help() -> None:
    """Each as a comment, which says the default once its mark is removed."""
    text = sample_text()
    assert all(not table for table in tomllib.loads(text).values())
    document = tomllib.loads(re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE))
    for row in rows():
        assert document[row.section][row.key] == msgspec.to_builtins(row.default)
        assert f"# {row.about}" in text
        assert row.variable in text


def test_sample_for_a_service_has_the_sections_that_it_reads() -> None:
    assert set(tomllib.loads(sample_text(["exporter"]))) == {"kafka", "topics", "registry", "exporter", "web", "log"}
    assert {"libvirt", "guest", "exporter", "kafka"} <= set(tomllib.loads(sample_text(["node", "producer"])))
    assert set(tomllib.loads(sample_text(["shared"]))) == set(SHARED_SECTIONS)
    told = in_process("config", "sample", "--for", "processors")
    assert told.stdout == sample_text(["processors"])


@given(st.dictionaries(st.text(), st.lists(st.text())))
def test_toml_values_read_back(value: dict[str, list[str]]) -> None:
    """Whatever is in a list or a map, TOML reads it back."""
    clean = {key: items for key, items in value.items() if all("\x7f" not in text and text.isprintable() for text in (key, *items))}
    assert tomllib.loads(f"value = {toml_value(clean)}")["value"] == clean


def test_show_tells_values_and_origins(tmp_path: Path) -> None:
    file = tmp_path / "v.toml"
    file.write_text('[exporter]\nexclude = ["guest", "vm_state"]\n')
    env = {"VIRTFLOW_CONFIG": str(file), "VIRTFLOW_PRODUCER_NODE": "n7"}
    told = json.loads(in_process("config", "show", "--json", env=env).stdout)
    assert told["files"] == [str(file)]
    assert told["settings"]["exporter.exclude"] == {"value": ["guest", "vm_state"], "origin": f"file {file}"}
    assert told["settings"]["producer.node"] == {"value": "n7", "origin": "environment VIRTFLOW_PRODUCER_NODE"}
    assert told["settings"]["log.level"] == {"value": "info", "origin": "default"}
    assert set(told["settings"]) == {row.path for row in rows()}
    lines = in_process("config", "show", env=env).stdout.splitlines()
    assert any(line.split() == ["exporter.exclude", "guest,vm_state", "file", str(file)] for line in lines)


def test_a_command_reads_the_settings_of_its_part(tmp_path: Path) -> None:
    """The shared file and its own; ``config show --for`` and ``config sample --for`` speak of the same files."""
    for part in SAMPLES:
        (tmp_path / f"{'virtflow' if part == 'shared' else part}.toml").write_text(sample_text([part]))
    assert all(load(tmp_path, {}, part=part) == Settings() for part in SECTIONS)
    (tmp_path / "exporter.toml").write_text('[exporter]\nlisten = "nowhere"\n')
    env = {"VIRTFLOW_CONFIG": str(tmp_path)}
    told = in_process("exporter", env=env)
    assert (told.returncode, f"file {tmp_path}/exporter.toml" in told.stderr) == (2, True)
    assert json.loads(in_process("config", "show", "--json", "--for", "producer", env=env).stdout)["files"] == [
        f"{tmp_path}/virtflow.toml",
        f"{tmp_path}/producer.toml",
    ]
    assert in_process("config", "show", "--for", "exporter", env=env).returncode == 2


def test_a_group_of_commands_is_one_part() -> None:
    """``history write`` and ``history serve`` read ``history.toml``."""
    found: list[str] = []

    @click.group()
    def main() -> None:
        pass

    @main.group()
    def history() -> None:
        pass

    @history.command()
    def write() -> None:
        found.append(part_here())

    assert CliRunner().invoke(main, ["history", "write"], prog_name="virtflow").exit_code == 0
    assert found == ["history"]


@pytest.mark.parametrize("switch", ["--password", "--secret"])
def test_no_setting_is_a_secret(switch: str) -> None:
    """A secret is named by its file, so that nothing that shows settings can show it."""
    assert not [row for row in rows() if row.switch.startswith(switch)]
    named = [row.key for row in rows() if "password" in row.key]
    assert {"sasl_password_file", "password_file"} <= set(named)
    assert [key for key in named if not key.endswith("_file")] == []


def test_a_switch_of_a_boolean_setting_takes_no_value() -> None:
    """Given it is true, denied it is false, and not given it leaves the other origins alone."""
    found: list[object] = []

    @click.command()
    @settings_switches("exporter.keep_last")
    def command(settings: Settings) -> None:
        found.append(settings.exporter.keep_last)

    for words, env in (
        (["--keep-last"], {}),
        ([], {}),
        ([], {"VIRTFLOW_EXPORTER_KEEP_LAST": "true"}),
        (["--no-keep-last"], {"VIRTFLOW_EXPORTER_KEEP_LAST": "1"}),
    ):
        assert CliRunner().invoke(command, words, env=env).exit_code == 0
    assert found == [True, False, True, False]
