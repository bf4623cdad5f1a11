"""However the events of a migration are mixed, repeated, dated or lost, what comes out stays sane."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.migration_events import followed
from tests.support.recorded_events import MIGRATED, recorded_events
from virtflow.processors.migrations.reducer import apply_event, revision_before
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import VmEvent, VmMigration

EVENTS = recorded_events(MIGRATED)
WHOLE = followed(EVENTS)[-1]
FINAL = ("elapsed_seconds", "downtime_seconds", "data_processed_bytes", "memory_iteration", "memory_bytes_per_second")


def facts(migration: VmMigration) -> dict[str, object]:
    return {name: getattr(migration, name) for name in ("source", "destination", "result", *FINAL)}


def skewed(events: list[VmEvent], node: str, seconds: float) -> list[VmEvent]:
    return [replace(event, time=event.time + seconds) if event.node == node else event for event in events]


@given(st.data())
def test_any_interleaving_of_the_hosts_ends_the_same(data: st.DataObject) -> None:
    """Each producer keeps its own order; between the two there is none; any event may come again at once or later."""
    left = {node: [event for event in EVENTS if event.node == node] for node in ("node1", "node2")}
    mixed: list[VmEvent] = []
    while any(left.values()):
        node = data.draw(st.sampled_from([node for node, events in left.items() if events]))
        mixed.append(left[node].pop(0))
        if data.draw(st.booleans()):
            mixed.append(data.draw(st.sampled_from(mixed)))
    skew = data.draw(st.sampled_from([-3600.0, 0.0, 3600.0]))
    assert facts(followed(skewed(mixed, "node2", skew))[-1]) == facts(WHOLE)


@given(st.permutations(EVENTS))
def test_shuffled_it_still_ends_with_the_final_numbers(events: list[VmEvent]) -> None:
    """Even without any order the completed statistics and both ends are there."""
    assert facts(followed(events)[-1]) == facts(WHOLE)


@given(st.lists(st.sampled_from(EVENTS), max_size=60), st.integers(0, 3))
def test_anything_may_be_missing(events: list[VmEvent], boots: int) -> None:
    """Whatever is lost, repeated or comes from another run: revisions rise, every state can be sent, repeating the last event changes nothing."""
    codec = Codec()
    current: VmMigration | None = None
    for number, event in enumerate(events):
        one = replace(event, boot_id=f"{event.boot_id}-{number % (boots + 1)}")
        for change in apply_event(current, one):
            assert change.revision == revision_before(current, one.time) + 1
            assert not change.progress_ratio > 1
            codec.decode(codec.encode(change), VmMigration)
            current = change
        assert current is None or apply_event(current, one) == ()
