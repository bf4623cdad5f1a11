"""The container files are of the words that ``scripts/image_root.py`` knows, so that images can be made and measured without an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.image_root import ROOT, ImageError, build, context, instructions

FILES = sorted((ROOT / "deploy" / "container").glob("*.Dockerfile"))
KNOWN = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_instruction_is_known(path: Path) -> None:
    words = [line.split() for line in instructions(path.read_text())]
    assert {word for word, *_ in words} <= KNOWN
    options = [word for line in words if line[0] == "COPY" for word in line if word.startswith("--")]
    assert all(option.startswith("--from=") for option in options)


def test_lines_that_go_on_are_one_instruction() -> None:
    text = '# why\nFROM debian:bookworm-slim AS python\nRUN a \\\n    && b\n\nCMD ["x"]\n'
    assert instructions(text) == ["FROM debian:bookworm-slim AS python", "RUN a && b", 'CMD ["x"]']


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    """Before anything is built: a base from elsewhere, and a file that begins with something else than its base."""
    for text, why in (("FROM alpine:3\n", "only debian:RELEASE-slim"), ("RUN true\n", "before FROM")):
        path = tmp_path / "some.Dockerfile"
        path.write_text(text)
        with pytest.raises(ImageError, match=why):
            build(path, tmp_path)


def test_the_context_is_what_dockerignore_lets_through() -> None:
    found = context()
    assert {"pyproject.toml", "requirements.lock", "producer", "deploy/container/libraries.sh"} <= set(found)
    assert not {"tests", "docs", "scripts"} & set(found)
