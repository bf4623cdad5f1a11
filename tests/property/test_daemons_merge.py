"""Merging any rounds of any daemons: no VM twice, none lost, and nothing that counts ever falls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from virtflow.producer.daemons.merge import DaemonRound, Totals, merged, unanswered
from virtflow.producer.records.node_health import HungCalls
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.source import Round

AT = 1_795_476_243.0
COUNTS = st.dictionaries(st.sampled_from(["answered", "failed", "hung"]), st.integers(0, 9), max_size=3)


@st.composite
def daemon_rounds(draw: st.DrawFn) -> list[DaemonRound]:
    """Rounds of some daemons, which may report the same VMs."""
    found = []
    for number in range(draw(st.integers(0, 6))):
        uuids = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=3))
        readings = tuple(Reading(uuid, uuid, {"state.state": draw(st.sampled_from([1, 3, 5])), "from": number}) for uuid in uuids)
        up = draw(st.booleans())
        counts = draw(COUNTS)
        one = Round(
            AT,
            up=up,
            readings=readings if up else (),
            reconnects=draw(st.integers(0, 9)),
            drops=counts,
            job_polls=counts,
            hung_calls=HungCalls(probes=counts, calls=counts),
        )
        found.append(DaemonRound(number, one, () if up else tuple(unanswered(reading) for reading in readings)))
    return found


@given(daemon_rounds())
def test_every_vm_is_there_once_from_a_daemon_that_has_it(rounds: list[DaemonRound]) -> None:
    found = merged(AT, rounds, Totals(), scanned=True)
    by_daemon = {one.daemon: {reading.uuid for reading in (*one.found.readings, *one.held)} for one in rounds}
    uuids = [reading.uuid for reading in found.round.readings]
    assert len(uuids) == len(set(uuids))
    assert set(uuids) == found.homes.keys() == set().union(*by_daemon.values())
    assert all(uuid in by_daemon[home] for uuid, home in found.homes.items())
    assert found.duplicates == sum(map(len, by_daemon.values())) - len(uuids)


@given(daemon_rounds())
def test_a_vm_that_a_daemon_answers_for_is_never_flagged_for_the_silence_of_another(rounds: list[DaemonRound]) -> None:
    answered = {reading.uuid for one in rounds for reading in one.found.readings}
    for reading in merged(AT, rounds, Totals(), scanned=True).round.readings:
        assert ("from" in reading.data) == (reading.uuid in answered)


@given(daemon_rounds(), st.data())
def test_nothing_that_counts_falls_when_daemons_go(rounds: list[DaemonRound], data: st.DataObject) -> None:
    before = Totals.of(merged(AT, rounds, Totals(), scanned=True).round)
    stay, kept = [], Totals()
    for one in rounds:
        if data.draw(st.booleans()):
            stay.append(one)
        else:
            kept = kept.plus(Totals.of(one.found))
    assert Totals.of(merged(AT, stay, kept, scanned=True).round) == before
