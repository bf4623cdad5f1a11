"""Apache Spark with Delta Lake's own reader, from its Python packages and Maven artifacts: fetched on first use, kept under VIRTFLOW_DATA."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from scripts.embedded_kafka import data_folder, one_at_a_time
from tests.support.command import environment

PACKAGES: Final = ("pyspark==4.0.0", "delta-spark==4.0.0")
DELTA: Final = "io.delta:delta-spark_2.13:4.0.0"
AVRO: Final = "org.apache.spark:spark-avro_2.13:4.0.0"
NEEDED: Final = ("io.delta:delta-storage:4.0.0", "org.antlr:antlr4-runtime:4.13.1")
"""What Delta Lake needs beside Spark, which is in the Python package."""
FETCH_SECONDS: Final = 600
RUN_SECONDS: Final = 480
DONE: Final = "done-with-avro"
SMALL: Final = """spark.master local[2]
spark.ui.enabled false
spark.sql.shuffle.partitions 2
spark.databricks.delta.snapshotPartitions 2
"""
"""Spark's defaults are for large tables: hundreds of tasks for a few rows."""
IVY: Final = """<ivysettings><settings defaultResolver="here"/><resolvers>
<ibiblio name="here" m2compatible="true" root="file://{maven}"/>
</resolvers></ivysettings>"""
"""Spark's resolver asks nobody else: Maven has fetched all that it needs."""


def packages() -> Path:
    """Folder with the Python packages, beside it Spark's settings and what Maven has fetched."""
    folder = data_folder() / "spark"
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder / "fetch.lock"):
        if not (folder / DONE).exists():
            pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder / "python"), *PACKAGES]
            maven = ["mvn", "-q", "-B", f"-Dmaven.repo.local={folder / 'maven'}", "dependency:get", "-Dtransitive=false"]
            for command in (pip, *([*maven, f"-Dartifact={artifact}"] for artifact in (DELTA, AVRO, *NEEDED))):
                subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS)
            (folder / "ivy.xml").write_text(IVY.format(maven=folder / "maven"))
            own = f"spark.jars.ivy {folder / 'ivy'}\nspark.jars.ivySettings {folder / 'ivy.xml'}\n"
            jars = [
                str(jar)
                for name in ("delta-storage", "antlr4-runtime", "spark-avro_2.13")
                for jar in (folder / "maven").rglob(f"{name}-*.jar")
            ]
            (folder / "spark-defaults.conf").write_text(f"{SMALL}{own}spark.jars {','.join(jars)}\n")
            (folder / DONE).touch()
    return folder / "python"


def spark(code: str) -> str:
    """What a Python program prints that uses Spark; AssertionError with its standard error when it fails."""
    python = packages()
    env = environment({"PYTHONPATH": str(python), "SPARK_CONF_DIR": str(python.parent), "SPARK_LOCAL_IP": "127.0.0.1"})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
