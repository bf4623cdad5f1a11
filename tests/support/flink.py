"""Apache Flink's SQL on a cluster in one process, from Maven Central: fetched on first use, kept under VIRTFLOW_DATA."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tests.support.broker import DIES_WITH_US
from tests.support.command import environment
from tests.support.maven import jars

VERSION: Final = "2.3.0"
ARTIFACTS: Final = (
    f"org.apache.flink:flink-clients:{VERSION}",
    f"org.apache.flink:flink-table-planner_2.12:{VERSION}",
    f"org.apache.flink:flink-table-runtime:{VERSION}",
    f"org.apache.flink:flink-table-api-java-bridge:{VERSION}",
    f"org.apache.flink:flink-connector-base:{VERSION}",
    "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
    f"org.apache.flink:flink-sql-avro-confluent-registry:{VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",
)
WITHOUT: Final = ("org.scala-lang:scala-compiler", "org.apache.flink:flink-shaded-zookeeper-3", "com.ibm.icu:icu4j")
"""What only other uses need, 36 MB: no cluster of several managers is started."""
PROGRAM: Final = Path(__file__).with_name("FlinkSql.java")
RUN_SECONDS: Final = 240
_OPEN: Final = ("java.lang", "java.net", "java.io", "java.nio", "java.util", "java.util.concurrent", "java.time", "java.text", "sun.nio.ch")
"""Packages of Java's own that Flink opens for itself from Java 17 on (source: ``env.java.opts.all`` in its ``config.yaml``)."""


def fetched() -> Path:
    """The folder with Flink's jars (144 MB)."""
    return jars("flink", ARTIFACTS, WITHOUT)


def rows(*statements: str) -> list[list[str]]:
    """The rows of the answers to SQL statements, each value as Java prints it; AssertionError with the end of what Flink said where one fails."""
    opened = [word for package in _OPEN for word in ("--add-opens", f"java.base/{package}=ALL-UNNAMED")]
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    command = [*DIES_WITH_US, "java", "-Xmx512m", *opened, quiet, "-cp", f"{fetched()}/*", str(PROGRAM), *statements]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.split("\t")[1:] for line in done.stdout.splitlines() if line.startswith("ROW\t")]
