"""One round from the rounds of many daemons: whose VMs, whose numbers."""

from __future__ import annotations

import pytest

from virtflow.producer.daemons.merge import DaemonRound, Merged, Totals, merged, unanswered
from virtflow.producer.records.node_health import Daemons, HungCalls, Versions
from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.source import Round
from virtflow.schemas.records import VmInventory

AT = 1_795_476_243.0
RUNNING, PAUSED, SHUT_OFF = 1, 3, 5


def vm(uuid: str, state: int = RUNNING) -> Reading:
    """A VM as its daemon reports it."""
    return Reading(uuid, f"vm-{uuid}", {"state.state": state, "state.reason": 1, "cpu.time": 7}, AT)


def together(*rounds: DaemonRound, before: Totals | None = None, scanned: bool = True) -> Merged:
    """All of them in one."""
    return merged(AT, rounds, before or Totals(), scanned=scanned)


def test_vms_of_all_daemons_are_in_the_round_with_what_describes_them() -> None:
    a, b = VmInventory(uuid="a", name="vm-a"), VmInventory(uuid="b", name="vm-b")
    found = together(
        DaemonRound(1, Round(AT, up=True, readings=(vm("a"),), inventories={"a": a}, jobs=1)),
        DaemonRound(2, Round(AT, up=True, readings=(vm("b"),), inventories={"b": b}, jobs=2)),
    )
    assert (found.round.collected, found.round.up, found.round.late) == (AT, True, False)
    assert found.round.readings == (vm("a"), vm("b"))
    assert (found.round.inventories, found.round.jobs) == ({"a": a, "b": b}, 3)
    assert (found.homes, found.duplicates, found.round.daemons) == ({"a": 1, "b": 2}, 0, Daemons(2, 0))


@pytest.mark.parametrize(
    ("first", "second", "home"),
    [
        (vm("a", PAUSED), vm("a", RUNNING), 2),
        (vm("a", RUNNING), vm("a", PAUSED), 1),
        (vm("a", RUNNING), vm("a", RUNNING), 1),
        (vm("a", SHUT_OFF), vm("a", PAUSED), 1),
    ],
)
def test_a_vm_of_two_daemons_is_from_the_one_where_it_runs_else_from_the_first(first: Reading, second: Reading, home: int) -> None:
    ours, theirs = VmInventory(uuid="a", name="1"), VmInventory(uuid="a", name="2")
    found = together(
        DaemonRound(1, Round(AT, up=True, readings=(first,), inventories={"a": ours})),
        DaemonRound(2, Round(AT, up=True, readings=(second,), inventories={"a": theirs})),
    )
    assert (found.homes, found.duplicates) == ({"a": home}, 1)
    assert found.round.readings == ((first, second)[home - 1],)
    assert found.round.inventories == {"a": (ours, theirs)[home - 1]}


def test_an_answer_goes_before_what_is_remembered() -> None:
    found = together(
        DaemonRound(1, Round(AT, up=False), (unanswered(vm("a")),)),
        DaemonRound(2, Round(AT, up=True, readings=(vm("a", PAUSED),))),
    )
    assert (found.homes, found.round.readings) == ({"a": 2}, (vm("a", PAUSED),))


def test_a_vm_whose_daemon_is_silent_has_its_state_alone_and_does_not_respond() -> None:
    held = unanswered(vm("a"))
    assert held.data == {"state.state": RUNNING, "state.reason": 1, "monitor.probed": 1, "monitor.responsive": 0}
    assert (held.uuid, held.name, held.monitor_collected == held.monitor_collected) == ("a", "vm-a", False)
    assert unanswered(vm("a", SHUT_OFF)).data == {"state.state": SHUT_OFF, "state.reason": 1}


@pytest.mark.parametrize(
    ("answers", "scanned", "up"),
    [([], True, True), ([], False, False), ([True], False, True), ([False, True], True, True), ([False, False], True, False)],
)
def test_a_node_is_up_when_a_daemon_answers_or_there_is_none(*, answers: list[bool], scanned: bool, up: bool) -> None:
    found = together(*(DaemonRound(number, Round(AT, up=one)) for number, one in enumerate(answers)), scanned=scanned)
    assert (found.round.up, found.round.late) == (up, not all(answers))
    assert found.round.daemons == Daemons(len(answers), answers.count(False))


def test_a_round_is_late_when_a_daemon_is() -> None:
    assert together(DaemonRound(1, Round(AT, up=True, late=True)), DaemonRound(2, Round(AT, up=True))).round.late


def test_what_hangs_is_added_and_vms_of_silent_daemons_count_as_skipped() -> None:
    found = together(
        DaemonRound(1, Round(AT, up=True, hung_calls=HungCalls(1, 3, 1, 2, {"answered": 1}, {"failed": 4}))),
        DaemonRound(2, Round(AT, up=False, hung_calls=HungCalls(2, 3, 5, 5, {"answered": 2}, {})), (unanswered(vm("a")),)),
        before=Totals(probes={"no_answer": 7}, calls={"failed": 1}),
    )
    assert found.round.hung_calls == HungCalls(3, 6, 2, 2, {"answered": 3, "no_answer": 7}, {"failed": 5})


def test_what_counts_is_added_to_what_daemons_had_that_are_gone() -> None:
    found = together(
        DaemonRound(1, Round(AT, up=True, reconnects=1, drops={"x": 1}, job_polls={"answered": 3})),
        DaemonRound(2, Round(AT, up=True, reconnects=2, drops={"y": 1})),
        before=Totals(4, {"x": 5}, {"answered": 6}),
    )
    assert (found.round.reconnects, found.round.drops, found.round.job_polls) == (7, {"x": 6, "y": 1}, {"answered": 9})
    assert Totals.of(found.round).plus(Totals(1)).reconnects == 8


def test_a_tier_took_as_long_as_its_slowest_daemon_that_answered() -> None:
    found = together(
        DaemonRound(1, Round(AT, up=True, seconds={"safe": 0.1, "monitor": 0.4})),
        DaemonRound(2, Round(AT, up=True, seconds={"safe": 0.3})),
        DaemonRound(3, Round(AT, up=False, seconds={"safe": 9.0})),
    )
    assert found.round.seconds == {"safe": 0.3, "monitor": 0.4}


def test_versions_are_named_once_each() -> None:
    found = together(
        DaemonRound(1, Round(AT, up=True, versions=Versions("own", "12.1.0", "10.0.0"))),
        DaemonRound(2, Round(AT, up=True, versions=Versions("own", "11.9.0", "10.0.0"))),
        DaemonRound(3, Round(AT, up=False, versions=Versions("own"))),
    )
    assert (found.round.versions.libvirt, found.round.versions.hypervisor) == ("11.9.0, 12.1.0", "10.0.0")
