"""The joined lines: families contiguous, heads once, and a scrape that stays consistent while samples arrive."""

from __future__ import annotations

from tests.support.vm_samples import WALL, fleet, sample, status, text_of, uuid
from virtflow.exporter import exposition as module
from virtflow.exporter.exposition import VMS_PER_STEP, exposition
from virtflow.exporter.selection import GROUPS, NAMES


def test_families_are_contiguous_with_one_head_each() -> None:
    """Also where a family's series need several steps."""
    vms = fleet()
    for number in range(2 * VMS_PER_STEP + 1):
        vms.take_metrics(sample(number), 0.0)
    families = [line.split("{")[0].split(" ")[2 if line.startswith("#") else 0] for line in text_of(vms).splitlines()]
    order = list(dict.fromkeys(families))
    assert families == sorted(families, key=order.index)
    assert text_of(vms).count("# TYPE vm_state gauge\n") == 1


def test_a_family_without_series_has_no_head() -> None:
    vms = fleet()
    vms.take_metrics(sample(), 0.0)
    assert "vm_block_threshold_bytes" not in text_of(vms)
    assert text_of(fleet()) == ""


def test_a_scrape_is_consistent_while_samples_arrive() -> None:
    """What it shows was fixed when it began."""
    vms = fleet()
    vms.take_metrics(sample(1), 0.0)
    expected = text_of(vms)
    chunks = exposition(vms, NAMES, WALL, {})
    vms.take_metrics(sample(1, sequence=1), 1.0)
    vms.take_metrics(sample(2), 1.0)
    vms.expire(100.0)
    assert "".join(chunks) == expected


def test_large_answers_come_in_chunks() -> None:
    """None much larger than the limit, and nothing is lost between them."""
    vms = fleet()
    for number in range(VMS_PER_STEP):
        vms.take_metrics(sample(number), 0.0)
    chunks = list(exposition(vms, NAMES, WALL, {}))
    assert len(chunks) > 1
    assert max(map(len, chunks)) < 3 * module.CHUNK_CHARACTERS
    assert "".join(chunks) == text_of(vms)


def test_series_are_counted_by_family() -> None:
    """A scrape of a part leaves the other families' counts as they are."""
    vms = fleet()
    vms.take_metrics(sample(1), 0.0)
    vms.take_node(status(), 0.0)
    counts: dict[str, int] = {}
    text = "".join(exposition(vms, NAMES, WALL, counts))
    assert sum(counts.values()) == sum(not line.startswith("#") for line in text.splitlines())
    vms.take_metrics(sample(2), 0.0)
    "".join(exposition(vms, GROUPS["core"], WALL, counts))
    assert (counts["vm_cpu_seconds_total"], counts["vm_state"]) == (2, 1)


def test_a_clock_ahead_makes_an_age_of_nothing() -> None:
    vms = fleet()
    vms.take_metrics(sample(collected=WALL + 3600), 0.0)
    assert f'vm_sample_age_seconds{{uuid="{uuid(1)}",name="vm-1"}} 0.000\n' in text_of(vms)
