"""Recordings: the newest line per VM counts, everything else is skipped and counted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.replay import Recording, write
from virtflow.producer.source import Round
from virtflow.schemas.errors import EnvironmentProblemError

UUID = "96d39f50-15c8-409f-9a7f-d2f9b5cba981"


def line(t: float = 1.7e9, cpu: int = 1, **other: object) -> str:
    return json.dumps({"t": t, "node": "n1", "kind": "stats", "vm": "a", "uuid": UUID, "data": {"cpu.time": cpu, "balloon.rss": 1}} | other)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    out = io.StringIO()
    reading = Reading(UUID, "a\u202e", {"cpu.time": 5, "block.0.name": "vda"})
    assert write(Round(1.7e9, up=True, readings=(reading,)), "n1", out) == 1
    (tmp_path / "r").write_text(out.getvalue())
    found = Recording(tmp_path / "r").round()
    assert (found.readings[0].data, found.readings[0].name, found.node, found.collected) == (reading.data, reading.name, "n1", 1.7e9)


@pytest.mark.parametrize("order", [1, -1])
def test_the_newest_line_of_a_vm_counts(tmp_path: Path, order: int) -> None:
    lines = [line(1.7e9, 1), line(1.7e9 + 1, 2)][::order]
    (tmp_path / "r").write_text("\n".join(lines))
    assert [reading.data["cpu.time"] for reading in Recording(tmp_path / "r").round().readings] == [2]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "broken_line"),
        ("", "broken_line"),
        ("5", "other_kind"),
        (line(kind="event"), "other_kind"),
        (line(kind=None), "other_kind"),
        (line(uuid="x"), "broken_line"),
        (line(data=[]), "broken_line"),
        (line(t=float("nan")), "broken_line"),
        (line(t=-1), "broken_line"),
        (line(vm=5), "broken_line"),
        ("[" * 100_000, "broken_line"),
        ("\x00\xff", "broken_line"),
    ],
)
def test_lines_without_a_sample_are_counted(tmp_path: Path, bad: str, reason: str) -> None:
    (tmp_path / "r").write_text(f"{bad}\n{line()}\n", encoding="latin-1")
    recording = Recording(tmp_path / "r")
    assert len(recording.round().readings) == 1
    assert recording.passed_by == {reason: 1}


def test_a_file_that_is_missing_or_holds_no_sample_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblemError, match="No such file"):
        Recording(tmp_path / "none")
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(EnvironmentProblemError, match="2 lines skipped"):
        Recording(tmp_path / "empty")
