"""Names hold any character, terminals and pipes not: no command fails because its output has no place for one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.command import PROGRAM, environment

NAME = "\u6771\u4eac\u3000caf\u00e9 \U0001f469\u200d\U0001f4bb"
UUID = "5f0b4a6e-0f57-4d0c-9a43-6d0f6f2a8b01"
LOCALES = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ASCII, strict": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C"},
    "POSIX without UTF-8": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "UTF-8": {"LC_ALL": "C.UTF-8"},
}


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """One VM with a name that no legacy encoding has a place for."""
    data = {"state.state": 1, "state.reason": 1, "cpu.time": 5, "block.0.name": "vda", "block.0.rd.reqs": 1}
    line = {"t": 1_795_476_243.5, "node": NAME, "kind": "stats", "vm": NAME, "uuid": UUID, "data": data}
    path = tmp_path / f"{NAME}.jsonl"
    path.write_text(json.dumps(line) + "\nbroken\n")
    return path


def run(locale: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    given = {name: value for name, value in environment().items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    words_ = [word.encode(errors="surrogateescape") for word in words]
    return subprocess.run([str(PROGRAM).encode(), *words_], env=given | LOCALES[locale], capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("locale", LOCALES)
def test_a_table_is_printed_whatever_the_locale(locale: str, recording: Path) -> None:
    """With escapes where it must be, and the note about the broken line, which names the file, as well."""
    done = run(locale, "snapshot", "--replay", str(recording))
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1), done.stderr
    assert b"1 broken lines" in done.stderr
    assert b"running" in done.stdout
    if locale == "latin-1":
        assert b"\\u6771\\u4eac\\u3000caf\xe9" in done.stdout
    if locale == "UTF-8":
        assert NAME.encode() in done.stdout


@pytest.mark.parametrize("locale", LOCALES)
def test_formats_for_programs_are_utf_8_whatever_the_locale(locale: str, recording: Path) -> None:
    prom = run(locale, "snapshot", "--replay", str(recording), "--format", "prom")
    assert prom.returncode == 0, prom.stderr
    assert f'name="{NAME}"' in prom.stdout.decode("utf-8")
    told = json.loads(run(locale, "snapshot", "--replay", str(recording), "--format", "json").stdout.decode("utf-8"))
    assert told["vms"][0]["name"] == NAME


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize(
    "words",
    [
        ("snapshot", "--replay", f"/nowhere/{NAME}"),
        ("snapshot", "--replay", "/nowhere/not-utf-8-\udcff"),
        ("snapshot", "--include", NAME),
        ("config", "show", "--config", f"/nowhere/{NAME}"),
        (NAME,),
    ],
    ids=["a file", "a file whose name is no UTF-8", "a setting", "a settings file", "a command"],
)
def test_an_error_is_told_whatever_the_locale(locale: str, words: tuple[str, ...]) -> None:
    done = run(locale, *words)
    assert done.returncode in {1, 2}
    assert done.stderr
    assert b"Traceback" not in done.stderr
    assert b"defect" not in done.stderr


@pytest.mark.parametrize(
    "words", [("--help",), ("metrics", "list"), ("config", "sample"), ("version",), ("completion", "bash")], ids=" ".join
)
@pytest.mark.parametrize("locale", ["ASCII, strict", "latin-1"])
def test_every_page_is_printed(locale: str, words: tuple[str, ...]) -> None:
    done = run(locale, *words)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout
