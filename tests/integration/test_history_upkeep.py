"""Upkeep where it runs: by the writer's own schedule on a real broker, and on an S3-compatible server."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.support.broker import Broker
from tests.support.command import virtflow
from tests.support.history import Writer, fleet_samples, key_of, produce, stored_keys, wait_for_samples, writing
from tests.support.s3 import ObjectStore
from virtflow.history.storage.delta import Store
from virtflow.history.storage.table_schemas import HOURLY, SAMPLES
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.table_writer import TableWriter
from virtflow.runtime.settings import History

DAY = 86_400


def test_the_writer_keeps_its_tables_by_itself(broker: Broker, tmp_path: Path) -> None:
    """Hourly rows appear without a hand, and the writer still stops in time."""
    assert virtflow("topics", "create", "--bootstrap-servers", broker.address, "--topic-prefix", "keep.").returncode == 0
    samples = list(fleet_samples(1, 6, range(30), start=float(int(time.time()) // 10 * 10 - 600)))
    env = {"VIRTFLOW_TOPICS_PREFIX": "keep.", "VIRTFLOW_HISTORY_GROUP": "keep", "VIRTFLOW_HISTORY_MAINTAIN_SECONDS": "1"}
    writer = Writer(broker.address, tmp_path / "history", tmp_path, env)
    store = Store(History(path=str(tmp_path / "history")))
    with writing(writer):
        produce(broker.address, "keep.vm.metrics", samples)
        wait_for_samples(tmp_path / "history", len(samples), 30, writer)
        deadline = time.monotonic() + 60
        while not (store.exists(HOURLY) and store.open(HOURLY).dataset().count_rows()):
            assert time.monotonic() < deadline, writer.tail
            time.sleep(0.2)
        began = time.monotonic()
        assert writer.stop() == 0
        assert time.monotonic() - began < 10


def test_everything_works_on_s3(tmp_path: Path) -> None:
    """Check, roll-up, compaction, vacuum, verify and query; and upkeep that is done has nothing more to do."""
    start = float((int(time.time()) // DAY - 3) * DAY + 22 * 3_600)
    samples = list(fleet_samples(1, 8, range(30), interval=600.0, start=start))
    with ObjectStore(tmp_path) as server:
        writer = TableWriter(Store(server.history).make(SAMPLES), Sequences())
        writer.begin(["p"])
        for offset, sample in enumerate(samples):
            writer.take("p", offset, sample)
            if offset % 60 == 59:
                writer.commit()
        writer.commit()
        checked = virtflow("check", "--for", "history", env=server.settings).stdout
        assert "refuses a second commit of the same version" in checked
        assert "samples: compact" in virtflow("history", "compact", env=server.settings).stdout
        assert virtflow("history", "compact", env=server.settings).stdout == "nothing to do\n"
        assert virtflow("history", "verify", env=server.settings).stdout == "everything can be read\n"
        sql = "SELECT sum(samples) AS n FROM hourly WHERE kind = 'vm'"
        assert virtflow("history", "query", "--format", "csv", sql, env=server.settings).stdout == f'"n"\n{len(samples)}\n'
        assert stored_keys("", server.history) == Counter(map(key_of, samples))
