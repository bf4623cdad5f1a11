"""The container files are of the words that ``scripts/image_root.py`` knows, so that images can be made and measured without an engine."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from scripts.image_root import ROOT, ImageError, build, context, instructions

FILES = sorted((ROOT / "deploy" / "container").glob("*.Dockerfile"))
KNOWN = {"ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}


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
    refused = {
        "FROM alpine:3\n": "only debian",
        "ARG BASE=alpine:3\nFROM ${BASE}\n": "FROM alpine:3: only debian",
        "RUN true\n": "before FROM",
    }
    for text, why in refused.items():
        path = tmp_path / "some.Dockerfile"
        path.write_text(text)
        with pytest.raises(ImageError, match=why):
            build(path, tmp_path)


def test_the_context_is_what_dockerignore_lets_through() -> None:
    found = context()
    assert {"pyproject.toml", "requirements.lock", "producer", "deploy/container/libraries.sh"} <= set(found)
    assert not {"tests", "docs", "scripts"} & set(found)


BASE = f"debian:bookworm-slim@sha256:{'0' * 64}"


@pytest.mark.parametrize("words", [[], ["debian:bookworm-slim"], ["debian:bookworm-slim@sha256:123"], [BASE, "more"]])
def test_a_release_names_the_base_by_its_digest(words: list[str]) -> None:
    """Nothing is built from a tag, which can be given to another image."""
    done = subprocess.run([ROOT / "scripts" / "build-images", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "@sha256:" in done.stderr


def test_both_images_are_built_from_it(tmp_path: Path) -> None:
    """By the engine that is named; here it is a program that writes down what it was asked."""
    engine = tmp_path / "engine"
    engine.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    engine.chmod(0o755)
    env = {**os.environ, "CONTAINER_ENGINE": str(engine)}
    subprocess.run([ROOT / "scripts" / "build-images", BASE], env=env, check=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert [line.split("--file ")[1] for line in asked] == [
        f"deploy/container/{name}.Dockerfile --tag virtflow-{name}:{version} ." for name in ("producer", "centre")
    ]
    assert all(f"build --build-arg DEBIAN={BASE} " in line for line in asked)
