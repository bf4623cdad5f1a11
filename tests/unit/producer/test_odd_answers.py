"""Answers that libvirt's binding can't read: of one VM, and of one call, whatever the binding makes of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.simulated_host import SimulatedHost
from tests.support.simulated_rounds import whole

Make = Callable[..., SimulatedHost]
VMS = 8
ERRORS = (ValueError("x"), SystemError("x"), TypeError("x"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), OverflowError("x"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["XMLDesc", "domainListGetStats", "info", "jobStats"])
def test_one_vm_costs_none_of_the_others(make: Make, call: str, error: Exception) -> None:
    """Every round has the others with all values, and no call is taken for one that hangs."""
    host = make(vms=VMS).start()
    host.rounds(3)
    odd, *others = host.uuids
    host.daemon.vms[odd].failures[call] = error
    if call == "info":
        host.daemon.freeze(odd)  # the calls that fill in for its monitor are made
    found = host.rounds(15)
    assert all(one.up for one in found)
    assert all(set(others) <= whole(one) for one in found[3:])
    assert found[-1].hung_calls.count == (1 if call == "info" else 0)
