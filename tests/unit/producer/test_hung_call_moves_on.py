"""A call that hung in one VM goes on to the VMs after it when that one recovers, and may hang in another: where it is then is known."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tests.support.simulated_host import SimulatedHost
from tests.support.simulated_rounds import flagged
from virtflow.producer.hung_calls.budget import Kind

Make = Callable[..., SimulatedHost]
FIRST, SECOND = 2, 5
"""Of eight VMs: stuck one after the other. The process table shows both, so that no call is spent on the second one."""


@pytest.fixture
def host(make: Make, caplog: pytest.LogCaptureFixture) -> SimulatedHost:
    """The call that hung in the first VM hangs in the second one now."""
    caplog.set_level(logging.INFO)
    host = make(processes=True).start()
    host.rounds(3)
    for number in (FIRST, SECOND):
        host.daemon.freeze(host.uuids[number])
        assert host.rounds(4)[-1].hung_calls.count == 1
    host.daemon.thaw(host.uuids[FIRST])
    found = host.rounds(4)[-1]
    assert found.hung_calls.count == 1
    assert flagged(found) == {host.uuids[SECOND]}
    return host


def test_the_vm_that_has_recovered_may_be_asked_by_calls_of_every_kind(host: SimulatedHost) -> None:
    """Its job is polled and its guest agent asked, however long the call hangs in the other VM."""
    for kind in Kind:
        assert not host.budget.hangs_in(host.uuids[FIRST], kind)
    assert host.budget.hung_vms() == {host.uuids[SECOND]}
    assert host.budget.hangs_in(host.uuids[SECOND], Kind.JOB)


def test_the_log_names_the_vm_that_the_call_is_in_now(host: SimulatedHost, caplog: pytest.LogCaptureFixture) -> None:
    host.daemon.thaw(host.uuids[SECOND])
    assert host.rounds(4)[-1].hung_calls.count == 0
    first, second = (f"vm-{number + 1} ({host.uuids[number]})" for number in (FIRST, SECOND))
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    said = [text for one in records if "call" in (text := one.getMessage())]
    assert [text.partition(" after ")[0] for text in said] == [
        f"a monitor call hangs in {first}: 1 hung calls of at most 3 on this host",
        f"the VM that holds the call that has hung for 16 s is {second}: 1 hung calls of at most 3 on this host",
        f"answers again: {first}",
        f"answers again: {second}",
    ]
