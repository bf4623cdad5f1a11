"""The units people read, and what is left out because it is not known."""

from __future__ import annotations

import pytest

from virtflow.cli.host.sample import Sample
from virtflow.cli.host.sample_format import HEAD, duration, exposition_of, object_of, rows, size, total
from virtflow.runtime.settings import Exporter
from virtflow.schemas.fields import BlockMetrics
from virtflow.schemas.records import NAN, VmMetrics

UUID = "01c4627c-7455-4be4-b014-9523f6d7e739"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, "-"),
        (NAN, "-"),
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1024 KiB"),
        (144 * 1024**2, "144 MiB"),
        (5 * 1024**4, "5 TiB"),
        (2**63 - 1, "8192 PiB"),
    ],
)
def test_sizes(value: float, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(NAN, "-"), (0.0, "0.0 s"), (59.94, "59.9 s"), (60.0, "1m 0s"), (3599.0, "59m 59s"), (7_380.0, "2h 3m"), (453_600.0, "5d 6h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_total_is_of_what_is_known() -> None:
    assert total([1, -1, 2]) == 3
    assert total([-1]) == total([]) == -1


def test_a_vm_of_which_nothing_is_known_has_its_line() -> None:
    """No value is made up: neither in the table nor in the JSON nor in the exposition."""
    sample = Sample("n", 100.0, (VmMetrics(uuid=UUID, name="x", node="n", collected=90.0, blocks=[BlockMetrics(device="vda")]),))
    assert rows(sample) == [("x", *["-"] * (len(HEAD) - 1))]
    assert object_of(sample)["vms"] == [{"uuid": UUID, "name": "x", "node": "n", "collected": 90.0}]
    text = exposition_of(sample, {"vm_sample_age_seconds", "vm_state", "vm_block_read_bytes_total"}, Exporter(), 100.0)
    assert [line for line in text.splitlines() if not line.startswith("#")] == [f'vm_sample_age_seconds{{uuid="{UUID}",name="x"}} 10.000']
