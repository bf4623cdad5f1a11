"""A container file's stages as folders, made without a container engine: debootstrap, chroot and cp in place of layers.

    stages = build(Path("deploy/container/producer.Dockerfile"), folder)
    stages["python"], stages[FINAL]                # root file systems; the last stage is the image
    stages[FINAL].environment, .user, .command     # what a container would be started with

It knows what our container files use: ARG with a default before FROM, FROM (a Debian release in place of ``debian:RELEASE-slim``, or an
earlier stage), RUN, COPY with or without ``--from``, ENV, WORKDIR, USER, ENTRYPOINT and CMD. Anything else is an error. Needs root, and debootstrap, which is
installed where it is missing.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Final

from scripts import debian_root

ROOT: Final = Path(__file__).resolve().parent.parent
FINAL: Final = "image"
STEP_SECONDS: Final = 1_200.0
NOT_IN_SLIM: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/groff", "usr/share/lintian")
"""What Debian's slim images leave out of every package (source: their list of dpkg's path-exclude)."""
CLEAN: Final = 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
"""What keeps apt's caches out of layers in Debian's images."""


class ImageError(Exception):
    """A step of a container file failed, or is not known here."""


@dataclass
class Stage:
    """A root file system on its way, and what a container of it starts with."""

    root: Path
    began: tuple[int, int]
    """Bytes and files that it began with."""
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def build(container_file: Path, folder: Path) -> dict[str, Stage]:
    """All stages by name, the last one as ``FINAL``; raises ``ImageError``."""
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    stage: Stage | None = None
    for number, line in enumerate(instructions(container_file.read_text())):
        word, _, rest = line.partition(" ")
        if word == "ARG" and stage is None:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            base, _, name = Template(rest).substitute(arguments).partition(" AS ")
            stage = stages[name or FINAL] = _from(base, folder / (name or FINAL), stages)
        elif stage is None:
            raise ImageError(f"{container_file.name}: {word} before FROM")
        else:
            _step(stage, (word, rest), stages, number)
    return stages


def instructions(text: str) -> list[str]:
    """The file's instructions, each on a line of its own, without comments."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [" ".join(line.split()) for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


def _from(base: str, root: Path, stages: dict[str, Stage]) -> Stage:
    if base in stages:
        before = stages[base]
        run(["cp", "-a", "--reflink=auto", str(before.root), str(root)])
        return Stage(root, size_of(root), dict(before.environment), before.folder)
    image, _, tag = base.partition(":")
    if image != "debian" or not tag.endswith("-slim"):
        raise ImageError(f"FROM {base}: only debian:RELEASE-slim and earlier stages are known")
    try:
        debian_root.bootstrap(tag.removesuffix("-slim"), root)
    except debian_root.RootError as error:
        raise ImageError(str(error)) from error
    debian_root.drop_archives(root)
    excludes = "".join(f"path-exclude /{path}/*\n" for path in NOT_IN_SLIM) + "path-include /usr/share/doc/*/copyright\n"
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(excludes)
    (root / "etc/apt/apt.conf.d/docker-clean").write_text(CLEAN)
    for path in NOT_IN_SLIM:
        shutil.rmtree(root / path, ignore_errors=True)
    return Stage(root, size_of(root), {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})


def _step(stage: Stage, instruction: tuple[str, str], stages: dict[str, Stage], number: int) -> None:
    word, rest = instruction
    match word:
        case "RUN":
            _run(stage, rest)
        case "COPY":
            _copy(stage, rest, stages)
        case "ENV":
            for key, _, value in (part.partition("=") for part in shlex.split(rest)):
                stage.environment[key] = value.replace("$PATH", stage.environment.get("PATH", ""))
        case "WORKDIR":
            stage.folder = rest
            _inside(stage.root, rest).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = rest
        case "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        case "CMD":
            stage.command = json.loads(rest)
        case _:
            raise ImageError(f"instruction {number}: {word} is not known here")


def _run(stage: Stage, command: str) -> None:
    """A step in the root, with the machine's network and its package clients' settings, which do not stay."""
    client = {name: value for name, value in os.environ.items() if name.startswith("PIP_") and name != "PIP_FIND_LINKS"}
    environment = stage.environment | client | {"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
    try:
        debian_root.in_root(stage.root, f"cd {shlex.quote(stage.folder)} && {{ {command}; }}", environment)
    except debian_root.RootError as error:
        raise ImageError(str(error)) from error


def _copy(stage: Stage, rest: str, stages: dict[str, Stage]) -> None:
    *sources, target = rest.split()
    place = _inside(stage.root, target if target.startswith("/") else f"{stage.folder}/{target}")
    if sources[0].startswith("--from="):
        origin = stages[sources.pop(0).removeprefix("--from=")].root
        for source in sources:
            path = _inside(origin, source)
            run(["cp", "-a", f"{path}/." if path.is_dir() else str(path), str(place)])
        return
    place.mkdir(parents=True, exist_ok=True)
    for source in context() if sources == ["."] else sources:
        to = place / source if sources == ["."] else place / Path(source).name
        to.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "-rL", "--preserve=mode", str(ROOT / source), str(to)])


def context() -> list[str]:
    """What an engine is sent of the checkout, by ``.dockerignore``: everything but what is let through is left out."""
    words = (ROOT / ".dockerignore").read_text().split()
    return sorted(str(path.relative_to(ROOT)) for word in words if word.startswith("!") for path in ROOT.glob(word[1:]))


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """A command's output; raises ``ImageError`` with the end of what it said when it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=STEP_SECONDS, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise ImageError(f"{shlex.join(command)[:300]}: exit {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout


def size_of(root: Path) -> tuple[int, int]:
    """Bytes of all files of a root, each inode once, and their number."""
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            status = (Path(folder) / name).lstat()
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values()), len(seen)
