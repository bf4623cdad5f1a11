"""Whatever the order of arrival, with whatever repetitions: one sample per series, and the newest of the authoritative node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.vm_samples import fleet, sample, series_of, uuid
from virtflow.schemas.ownership import Report, authoritative

CPU = f'vm_cpu_seconds_total{{uuid="{uuid(1)}",name="vm-1"}}'

SHOWN = frozenset({"vm_cpu_seconds_total"})

ARRIVALS = st.lists(st.tuples(st.sampled_from(["node-1", "node-2", "node-3"]), st.integers(0, 20)), min_size=1, max_size=25)
STATES = st.fixed_dictionaries({f"node-{number}": st.sampled_from([1, 3]) for number in (1, 2, 3)})


@given(arrivals=ARRIVALS, states=STATES)
def test_the_newest_sample_of_the_authoritative_node_is_exported(arrivals: list[tuple[str, int]], states: dict[str, int]) -> None:
    """Each sample's value tells its node and sequence; the rule of ownership says which one is expected."""
    vms = fleet(names=SHOWN)
    newest: dict[str, int] = {}
    for node, sequence in arrivals:
        value = sequence * 10.0 + int(node[-1])
        vms.take_metrics(sample(sequence=sequence, node=node, state=states[node], cpu_seconds_total=value), 0.0)
        newest[node] = max(sequence, newest.get(node, 0))
        series = series_of(vms)
        reports = [Report(name, states[name], sample(sequence=at).collected) for name, at in newest.items()]
        chosen = authoritative(reports).node
        assert float(series[CPU]) == newest[chosen] * 10.0 + int(chosen[-1])


@given(order=st.permutations(range(8)), repeats=st.lists(st.integers(0, 7), max_size=20))
def test_any_order_of_arrival_ends_the_same(order: list[int], repeats: list[int]) -> None:
    """Shuffled, late, doubled."""
    vms, expected = fleet(names=SHOWN), fleet(names=SHOWN)
    for sequence in [*order, *repeats]:
        vms.take_metrics(sample(sequence=sequence), 0.0)
    expected.take_metrics(sample(sequence=7), 0.0)
    assert series_of(vms) == series_of(expected)


@given(steps=st.lists(st.tuples(st.floats(0, 50), st.sampled_from(["node-1", "node-2"]), st.booleans()), max_size=20))
def test_a_vm_is_there_exactly_while_a_sample_holds(steps: list[tuple[float, str, bool]]) -> None:
    """Over any pauses, with two nodes that report it or do not."""
    vms = fleet(names=SHOWN)
    now, ends = 0.0, {"node-1": 0.0, "node-2": 0.0}
    for sequence, (pause, node, reports) in enumerate(steps):
        now += pause
        if reports:
            vms.take_metrics(sample(sequence=sequence, node=node), now)
            ends[node] = now + 30.0
        assert (CPU in series_of(vms, now)) == (now < max(ends.values()))
