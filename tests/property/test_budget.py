"""The budget of calls that may hang, under random use and under threads: never more leases than the limit, and none is lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.torn import at_every_line
from virtflow.producer.hung_calls import budget as budget_module
from virtflow.producer.hung_calls.budget import CallBudget, Kind, Lease

VMS = ("", "a", "b", "c")
OURS = (Kind.MONITOR, Kind.JOB, Kind.XML, Kind.OPENING, Kind.AGENT)
THREADS = 4
TURNS = 10_000
TORN_TURNS = 60
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), st.sampled_from(OURS), st.sampled_from(VMS), st.integers(0, 2)),
        st.tuples(st.just("release"), st.integers(0, 9)),
        st.tuples(st.just("abandon"), st.integers(0, 9), st.sampled_from(VMS)),
        st.tuples(st.just("leave_behind"), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(st.integers(1, 6), STEPS)
def test_never_more_than_the_limit(limit: int, steps: list[tuple[object, ...]]) -> None:
    """Whatever is done in whatever order, twice over included; and what is given back is there again."""
    budget = CallBudget(limit)
    leases: list[Lease] = []
    for step in steps:
        match step:
            case ("acquire", Kind() as kind, str(vm), int(spare)):
                room = budget.has_room(spare) and not budget.hangs_in(vm, kind)
                lease = budget.acquire(kind, vm, spare=spare)
                assert (lease is not None) is room
                leases += [lease] if lease else []
            case ("abandon", int(number), str(vm)) if leases:
                leases[number % len(leases)].abandon(vm)
            case (("release" | "leave_behind") as what, int(number)) if leases:
                getattr(leases[number % len(leases)], str(what))()
        assert budget.hung <= budget.outstanding <= limit
        assert budget.hung == sum(lease.hung for lease in leases) == sum(budget.hung_by_kind().values())
    for lease in leases:
        lease.release()
    assert (budget.hung, budget.outstanding) == (0, 0)


def test_a_vm_with_a_hung_call_gets_no_other_but_for_one_that_only_its_agent_holds() -> None:
    budget = CallBudget(5)
    agent, job = budget.acquire(Kind.AGENT, "a"), budget.acquire(Kind.JOB, "b")
    assert agent is not None
    assert job is not None
    agent.abandon()
    job.abandon()
    assert budget.acquire(Kind.AGENT, "a") is None
    assert budget.acquire(Kind.AGENT, "b") is None
    assert budget.acquire(Kind.XML, "b") is None
    assert budget.acquire(Kind.XML, "a") is not None


def test_foreign_calls_count_beyond_the_limit_until_they_are_gone() -> None:
    budget = CallBudget(2)
    budget.keep_foreign({"a", "b", "c"})
    assert (budget.hung, budget.hung_vms(), budget.foreign_vms()) == (3, frozenset(), frozenset("abc"))
    assert budget.acquire(Kind.OPENING) is None
    essential = budget.acquire_essential(Kind.OPENING)
    budget.keep_foreign({"c"})
    assert (budget.hung, budget.outstanding) == (1, 2)
    essential.release()
    assert budget.acquire(Kind.MONITOR) is not None


def test_a_call_left_behind_counts_until_its_vm_is_free() -> None:
    """A lost connection frees no worker of the daemon; a call that was only under way is looked for by the next health check."""
    budget = CallBudget(3)
    hung, under_way, nowhere = (budget.acquire(Kind.MONITOR) for _ in range(3))
    assert hung is not None
    assert under_way is not None
    assert nowhere is not None
    hung.abandon("a")
    nowhere.abandon()
    for lease in (hung, under_way, nowhere):
        lease.leave_behind()
    assert (budget.outstanding, budget.foreign_vms()) == (1, frozenset("a"))
    budget.keep_foreign(frozenset())
    assert budget.outstanding == 0


@pytest.fixture
def torn() -> Iterator[None]:
    """Threads are switched every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("torn")
def test_threads_never_hold_more_than_the_limit_together() -> None:
    """Monitor tier, polls, XML and agents take and give leases at once."""
    budget, limit = CallBudget(2), 2
    worst = [0] * THREADS
    begin = threading.Barrier(THREADS)

    def use(own: int) -> None:
        begin.wait()
        for turn in range(TURNS):
            lease = budget.acquire(OURS[turn % len(OURS)], VMS[turn % len(VMS)])
            worst[own] = max(worst[own], budget.outstanding)
            if lease is None:
                continue
            if turn % 3:
                lease.abandon()
                budget.hung_vms()
                budget.hung_by_kind()
            lease.release()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (budget.hung, budget.outstanding) == (0, 0)
    assert max(worst) == limit


def adopt(budget: CallBudget, turn: int) -> None:
    """A call that is found, and returns."""
    lease = budget.adopt(Kind.MONITOR, VMS[1 + turn % 3])
    assert lease.hung
    lease.release()
    lease.release()


def leave(budget: CallBudget, turn: int) -> None:
    """A call whose connection is lost, every other one in a VM."""
    lease = budget.acquire_essential(Kind.OPENING)
    if turn % 2:
        lease.abandon(VMS[1 + turn % 3])
    lease.leave_behind()
    lease.release()


def keep(budget: CallBudget, turn: int) -> None:
    """Calls that an earlier run has left behind, and that return."""
    budget.keep_foreign(set(VMS[1 : 1 + turn % 4]))
    budget.keep_foreign(frozenset())


def ask(budget: CallBudget, turn: int) -> None:
    """What everybody wants to know."""
    budget.avoid(frozenset(VMS[1 : 1 + turn % 4]))
    assert budget.hangs_in("none", Kind.XML) is False
    assert budget.hung_vms() <= set(VMS)
    assert budget.foreign_vms() <= set(VMS)
    assert all(budget.hung_by_kind().values())


def test_calls_that_are_left_behind_are_counted_once_by_all_threads() -> None:
    """Calls are adopted and left behind, and foreign ones come and go, while others ask what hangs: none stays, and nobody fails."""
    budget, uses = CallBudget(50), (adopt, leave, keep, keep, ask)
    begin, errors = threading.Barrier(len(uses)), list[BaseException]()

    def use(turn_of: Callable[[CallBudget, int], None]) -> None:
        begin.wait()
        try:
            for turn in range(TORN_TURNS):
                turn_of(budget, turn)
        except BaseException as error:  # noqa: BLE001, checked in the test's own thread
            errors.append(error)

    with at_every_line(budget_module):
        threads = [threading.Thread(target=use, args=(turn_of,)) for turn_of in uses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    budget.keep_foreign(frozenset())
    assert (budget.hung, budget.outstanding) == (0, 0)
