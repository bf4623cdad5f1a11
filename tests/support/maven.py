"""Jars from Maven Central with all that they need, for programs in Java that tests run: fetched on first use, kept under VIRTFLOW_DATA."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.embedded_kafka import data_folder, one_at_a_time

FETCH_SECONDS: Final = 900
_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>virtflow</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>{dependencies}</dependencies>
  <build><plugins><plugin>
    <groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId><version>3.6.1</version>
  </plugin></plugins></build>
</project>
"""
_DEPENDENCY: Final = (
    "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version><exclusions>{without}</exclusions></dependency>"
)
_EXCLUSION: Final = "<exclusion><groupId>{}</groupId><artifactId>{}</artifactId></exclusion>"


def jars(name: str, artifacts: Sequence[str], without: Sequence[str] = ()) -> Path:
    """The folder with the artifacts (``group:artifact:version``) and their runtime dependencies but those ``without`` (``group:artifact``).

    Its name carries a digest of what is wanted, so that other versions are fetched again. Raises ``CalledProcessError`` where they can't be had.
    """
    left_out = "".join(_EXCLUSION.format(*artifact.split(":")) for artifact in without)
    dependencies = "".join(_DEPENDENCY.format(*artifact.split(":"), without=left_out) for artifact in artifacts)
    pom = _POM.format(name=name, dependencies=dependencies)
    folder = data_folder() / name / hashlib.sha256(pom.encode()).hexdigest()[:12]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder.parent / "fetch.lock"):
        if not folder.is_dir():
            _fetch(pom, folder)
    return folder


def _fetch(pom: str, folder: Path) -> None:
    part, repository, file = folder.with_suffix(".part"), folder.with_suffix(".maven"), folder.with_suffix(".pom.xml")
    shutil.rmtree(part, ignore_errors=True)
    file.write_text(pom)
    command = ["mvn", "-q", "-B", "-f", str(file), f"-Dmaven.repo.local={repository}", "dependency:copy-dependencies"]
    command += [f"-DoutputDirectory={part}", "-DincludeScope=runtime"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=FETCH_SECONDS)
    part.rename(folder)
    shutil.rmtree(repository, ignore_errors=True)
