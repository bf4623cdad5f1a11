"""An in-memory libvirt: the Python binding's surface, with daemons that hang, restart and hold locks as the real ones do.

    clock = VirtualClock()
    daemon = Daemon(clock, TRIXIE)
    daemon.add(Vm("web-1", uuid))
    binding = Binding({"qemu:///system": daemon})      # in the place of the module `libvirt` of one client
    daemon.freeze(uuid)                                # from now on a call that asks this VM's QEMU does not return
    clock.advance(30.0)

``clock`` is time and threads, on ``tests/support/virtual_time``, ``requests`` the way of a call into the daemon, ``daemon`` and ``vm`` the host, ``connection``, ``domain`` and
``agent_calls`` the binding's classes. The suite ``tests.support.libvirt_contract`` runs on this and on real daemons: where the two differ,
this is wrong.
"""

from tests.support.memory_libvirt.binding import Binding
from tests.support.memory_libvirt.clock import HangsForeverError, VirtualClock
from tests.support.memory_libvirt.daemon import BOOKWORM, TRIXIE, Daemon, Release
from tests.support.memory_libvirt.migration import Migration
from tests.support.memory_libvirt.vm import Agent, Vm

__all__ = ["BOOKWORM", "TRIXIE", "Agent", "Binding", "Daemon", "HangsForeverError", "Migration", "Release", "VirtualClock", "Vm"]
