"""Spark reads the tables: the page's example as it stands, and the same counts and sums as the history's own SQL, raw and rolled up."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import virtflow
from tests.support.doc_blocks import block
from tests.support.history import fleet_samples
from tests.support.spark import spark
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History
from virtflow.schemas.avro.codec import Codec

DAY = 86_400
START = float((int(time.time()) // DAY - 3) * DAY + 22 * 3_600)
SUMS = {
    "samples": ("vm_cpu_seconds_total", "vm_network_receive_bytes_total", "vm_memory_rss_bytes"),
    "hourly": ("vm_cpu_seconds_total_increase", "vm_network_receive_bytes_total_increase", "vm_memory_rss_bytes_avg"),
    "daily": ("vm_cpu_seconds_total_increase", "vm_network_receive_bytes_total_increase", "vm_memory_rss_bytes_avg"),
}


def question(table: str) -> str:
    """Counts and sums by kind of row, and the edges in time."""
    sums = ", ".join(f"CAST(sum({name}) AS DOUBLE) AS {name}" for name in SUMS[table])
    times = "CAST(min(time) AS STRING) AS first, CAST(max(time) AS STRING) AS last"
    return f"SELECT kind, count(*) AS n, {sums}, {times} FROM {table} GROUP BY kind ORDER BY kind"  # noqa: S608, our own words


def written(path: Path) -> None:
    """Hours of samples over two days: some compacted, some as they were committed."""
    writer = TableWriter(Store(History(path=str(path))).make(SAMPLES), Sequences())
    writer.begin(["p"])
    samples = list(fleet_samples(1, 8, range(60), interval=300.0, start=START))
    for offset, sample in enumerate(samples):
        writer.take("p", offset, sample)
        if offset % 100 == 99:
            writer.commit()
        if offset == len(samples) // 2:
            writer.commit()
            assert virtflow("history", "compact", "--history", str(path)).returncode == 0
    writer.commit()
    assert virtflow("history", "compact", "--history", str(path)).returncode == 0


def told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what is null, moments to the second, numbers as near as doubles add up."""
    return [
        {name: value[:19] if isinstance(value, str) else pytest.approx(value, rel=1e-9) for name, value in row.items() if value is not None}
        for row in rows
    ]


def test_spark_reads_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "history"
    written(path)
    session = block("python spark").replace("HISTORY", str(path))
    asked = ["import json", "spark.conf.set('spark.sql.session.timeZone', 'UTC')"]
    for table in SUMS:
        asked += [
            f"spark.read.format('delta').load('{path}/{table}').createOrReplaceTempView('{table}')",
            f"print('ANSWER', json.dumps([json.loads(row) for row in spark.sql('{question(table)}').toJSON().collect()]))",
        ]
    said = spark("\n".join([session, *asked]))
    assert "sim-2603-0" in said  # the page's own question: CPU by node
    answers = [json.loads(line.removeprefix("ANSWER")) for line in said.splitlines() if line.startswith("ANSWER")]
    assert len(answers) == len(SUMS)
    for table, theirs in zip(SUMS, answers, strict=True):
        ours = json.loads(virtflow("history", "query", "--history", str(path), "--format", "json", question(table)).stdout)
        assert [list(row) for row in told(theirs)] == [list(row) for row in told(ours)]
        assert told(ours) == [{name: value[:19] if isinstance(value, str) else value for name, value in row.items()} for row in theirs]


def test_from_avro_reads_both_framings(tmp_path: Path) -> None:
    """The page's function on messages as they are in Kafka: fingerprints and a registry's ids in one topic."""
    samples = list(fleet_samples(1, 5, range(2)))[:10]
    codecs = (Codec(), Codec({"VmMetrics": 77}))
    messages = [codecs[number % 2].encode(sample).hex() for number, sample in enumerate(samples)]
    (tmp_path / "messages").write_text("\n".join(messages))
    program = f"""{block("python spark from_avro")}
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
values = [(bytearray.fromhex(line),) for line in open("{tmp_path / "messages"}").read().split()]
rows = vm_metrics(spark.createDataFrame(values, "value binary"), open("schemas/avsc/VmMetrics.avsc").read())
print(*rows.selectExpr("count(*)", "count(distinct uuid)", "sum(cpu_seconds_total)").first())
"""
    count, vms, seconds = spark(program).split()[-3:]
    assert (int(count), int(vms)) == (len(samples), len({sample.uuid for sample in samples}))
    assert float(seconds) == pytest.approx(sum(sample.cpu_seconds_total for sample in samples))
