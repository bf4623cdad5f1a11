"""A call hangs in a VM that nothing names at that moment: once the VM is found the log names it, and then says that it has recovered."""

from __future__ import annotations

import logging
from collections.abc import Callable

import libvirt
import pytest

from tests.support.memory_libvirt.domain import MemoryDomain
from tests.support.simulated_host import SimulatedHost
from virtflow.runtime.log import Throttle

Make = Callable[..., SimulatedHost]
STUCK = 4
"""Of eight VMs."""


@pytest.fixture(autouse=True)
def nothing_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither libvirt says which VM is occupied nor, as in a container, the process table which QEMU is stopped."""
    monkeypatch.setattr(MemoryDomain, "controlInfo", lambda _vm, _flags=0: [libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0])


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of what the log has of hung calls."""
    words = ("call", "answers again")
    return [(one.levelname, one.getMessage()) for one in caplog.records if any(word in one.getMessage() for word in words)]


def test_the_vm_that_is_found_later_is_named_and_so_is_its_recovery(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It is found because libvirt can't ask it while the call is in it."""
    caplog.set_level(logging.INFO)
    host = make().start()
    host.rounds(3)
    name = f"vm-{STUCK + 1} ({host.uuids[STUCK]})"
    host.daemon.freeze(host.uuids[STUCK])
    assert host.rounds(5)[-1].hung_calls.count == 1
    host.daemon.thaw(host.uuids[STUCK])
    assert host.rounds(5)[-1].hung_calls.count == 0
    (first, hangs), (second, found), (third, recovered) = said(caplog)
    assert (first, second, third) == ("WARNING", "WARNING", "INFO")
    assert hangs == "a monitor call hangs in a VM that nothing names yet: 1 hung calls of at most 3 on this host"
    assert found == f"the VM that holds the call that has hung for 2 s is {name}: 1 hung calls of at most 3 on this host"
    assert recovered == f"answers again: {name} after 6 s; 0 hung calls are left"


def test_each_of_several_hung_calls_has_its_vm_named(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The first one when it is found, the second one in its own call."""
    caplog.set_level(logging.INFO)
    host = make().start()
    host.rounds(3)
    stuck = [f"vm-{number} ({host.uuids[number - 1]})" for number in (3, 6)]
    for number in (3, 6):
        host.daemon.freeze(host.uuids[number - 1])
    assert host.rounds(8)[-1].hung_calls.count == 2
    for number in (3, 6):
        host.daemon.thaw(host.uuids[number - 1])
    assert host.rounds(8)[-1].hung_calls.count == 0
    text = [line for _, line in said(caplog)]
    assert [line.partition(":")[0] for line in text if "hangs in" in line or "is vm" in line] == [
        "a monitor call hangs in a VM that nothing names yet",
        f"the VM that holds the call that has hung for 2 s is {stuck[0]}",
        f"a monitor call hangs in {stuck[1]}",
    ]
    assert [name for name in stuck if any(line.startswith("answers again") and name in line for line in text)] == stuck


def test_the_return_of_a_call_whose_vm_was_never_found_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Where no other call may hang, no VM is asked that could be the stuck one."""
    caplog.set_level(logging.INFO)
    host = make().start(limit=1)
    host.rounds(3)
    host.daemon.freeze(host.uuids[STUCK])
    assert host.rounds(5)[-1].hung_calls.count == 1
    host.daemon.thaw(host.uuids[STUCK])
    assert host.rounds(5)[-1].hung_calls.count == 0
    assert said(caplog) == [
        ("WARNING", "a monitor call hangs in a VM that nothing names yet: 1 hung calls of at most 1 on this host"),
        ("INFO", "a monitor call that hung in a VM that nothing has named has returned after 8 s; 0 hung calls are left"),
    ]


def test_of_several_vms_in_one_minute_each_is_named_in_a_services_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Which holds back a line a minute like another one; and not again while one VM gets stuck over and over."""
    throttle = Throttle(clock=lambda: 0.0)
    caplog.handler.addFilter(throttle)
    try:
        host = make().start()
        host.rounds(3)
        for number in (3, 6, 3, 6):
            host.daemon.freeze(host.uuids[number - 1])
            host.rounds(5)
            host.daemon.thaw(host.uuids[number - 1])
            host.rounds(3)
    finally:
        caplog.handler.removeFilter(throttle)
    found = [text for level, text in said(caplog) if level == "WARNING" and "is vm" in text]
    assert [text.partition(" is ")[2].partition(" ")[0] for text in found] == ["vm-3", "vm-6"]
