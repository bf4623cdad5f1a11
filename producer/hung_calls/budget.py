"""The budget of calls that may hang, one per libvirt daemon: thread-safe, shared by everybody who calls that daemon.

A call that enters a VM whose QEMU does not answer never returns, and it holds one of the daemon's workers until the VM recovers. So a
call that may hang is made only with a lease:

    lease = budget.acquire(Kind.JOB, uuid)     # None: the call must not be made now
    lease.release()                            # it has returned
    lease.abandon()                            # it has not, and is left alone; ``release`` when it returns after all
    lease.move_on()                            # the VM that it hung in answers again, and the call has not returned
    lease.leave_behind()                       # its connection is lost: a hung call goes on in the daemon without us

``limit`` bounds the leases that are out, hung ones included, so that every call that is under way could hang without exceeding it. Two
exceptions add to the hung calls whatever the limit is: ``keep_foreign`` counts calls that exist already, because an earlier run of the
producer, or a connection that is lost, left them behind, and ``acquire_essential`` lets the daemon's main connection be opened, without which all VMs of the host would be gone.
"""

from __future__ import annotations

import threading
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What a lease is for."""

    MONITOR = "monitor"
    """Bulk statistics that ask QEMU."""
    JOB = "job"
    XML = "xml"
    OPENING = "opening"
    """Opening a connection to the daemon."""
    AGENT = "agent"
    """Calls of the guest-agent helper process."""
    FOREIGN = "foreign"
    """A call that an earlier run, or a lost connection, has left behind."""


class Lease:
    """The right to have one call outstanding. ``vm`` is the UUID of the VM that it is in, "" where that is not known."""

    __slots__ = ("_budget", "hung", "kind", "out", "vm")

    def __init__(self, budget: CallBudget, kind: Kind, vm: str) -> None:
        """Made by the budget alone."""
        self._budget = budget
        self.kind = kind
        self.vm = vm
        self.hung = False
        self.out = True

    def release(self) -> None:
        """The call has returned; nothing happens the second time."""
        self._budget.end(self)

    def abandon(self, vm: str = "") -> None:
        """The call does not return: it counts as hung until ``release``. ``vm`` says where it hangs, if that was not known before."""
        self._budget.hang(self, vm)

    def move_on(self) -> None:
        """The call that hangs has left its VM: where it is now is not known, before ``abandon`` says so or ``release`` ends it."""
        self._budget.move(self)

    def leave_behind(self) -> None:
        """The call's connection is lost. A call that hangs goes on in the daemon, and counts until ``keep_foreign`` is told otherwise."""
        self._budget.leave(self)


class CallBudget:
    """The leases of one libvirt daemon. Every method may be called from any thread and returns at once."""

    def __init__(self, limit: int) -> None:
        """``limit`` is the number of calls that may hang at a time."""
        self.limit: Final = limit
        self._lock = threading.Lock()
        self._leases: set[Lease] = set()
        self._hung: set[Lease] = set()
        self._version = 0
        self._avoided: frozenset[str] = frozenset()

    # -- leases

    def acquire(self, kind: Kind, vm: str = "", *, spare: int = 0) -> Lease | None:
        """A lease for a call of that kind; None when the call must not be made now.

        It is refused unless ``spare`` more calls could be begun afterwards, and where a call hangs in ``vm`` already (``hangs_in``).
        """
        with self._lock:
            if len(self._leases) + spare >= self.limit or self._hangs_in(vm, kind):
                return None
            return self._begin(kind, vm)

    def acquire_essential(self, kind: Kind) -> Lease:
        """A lease that is given whatever the limit is."""
        with self._lock:
            return self._begin(kind, "")

    def adopt(self, kind: Kind, vm: str) -> Lease:
        """Count a call that hangs in a VM already and was made without a lease."""
        with self._lock:
            lease = self._begin(kind, vm)
            self._mark(lease, vm)
            return lease

    def keep_foreign(self, vms: AbstractSet[str]) -> None:
        """These VMs, and no others, have a call in them that nobody waits for any more."""
        with self._lock:
            foreign = [lease for lease in self._hung if lease.kind is Kind.FOREIGN]
            for lease in foreign:
                if lease.vm not in vms:
                    self._drop(lease)
            for vm in vms - {lease.vm for lease in foreign}:
                self._mark(self._begin(Kind.FOREIGN, vm), vm)

    # -- what is known

    @property
    def hung(self) -> int:
        """Calls that do not return before their VM, or the daemon, recovers."""
        return len(self._hung)

    @property
    def outstanding(self) -> int:
        """Leases that are out: calls under way that may hang, and calls that do."""
        return len(self._leases)

    @property
    def version(self) -> int:
        """A number that grows whenever there is more room, or a call is found to hang: compare it to see whether anything has changed."""
        return self._version

    def has_room(self, spare: int = 0) -> bool:
        """Whether a lease would be given now, leaving room for ``spare`` more."""
        return len(self._leases) + spare < self.limit

    def avoid(self, vms: frozenset[str]) -> None:
        """These VMs, and no others, are skipped or suspected: guest agents are not asked in them."""
        with self._lock:
            self._avoided = vms

    def hangs_in(self, vm: str, kind: Kind) -> bool:
        """Whether a call hangs in the VM for which a call of that kind would have to wait: an agent's call keeps only the agent busy.

        For agents' calls a VM that is to be avoided counts as one in which a call hangs.
        """
        with self._lock:
            return self._hangs_in(vm, kind)

    def hung_by_kind(self) -> dict[Kind, int]:
        """How many calls of each kind hang; kinds without any are missing."""
        found: dict[Kind, int] = {}
        with self._lock:
            for lease in self._hung:
                found[lease.kind] = found.get(lease.kind, 0) + 1
        return found

    def foreign_vms(self) -> frozenset[str]:
        """The VMs in which a call hangs that nobody waits for any more."""
        with self._lock:
            return frozenset(lease.vm for lease in self._hung if lease.kind is Kind.FOREIGN)

    def hung_vms(self) -> frozenset[str]:
        """The VMs in which a call of ours is known to hang; foreign ones are not ours."""
        with self._lock:
            return frozenset(lease.vm for lease in self._hung if lease.vm and lease.kind is not Kind.FOREIGN)

    # -- under the lock

    def _hangs_in(self, vm: str, kind: Kind) -> bool:
        if kind is Kind.AGENT and vm in self._avoided:
            return True
        return vm != "" and any(lease.vm == vm and (lease.kind is not Kind.AGENT or kind is Kind.AGENT) for lease in self._hung)

    def _begin(self, kind: Kind, vm: str) -> Lease:
        lease = Lease(self, kind, vm)
        self._leases.add(lease)
        return lease

    def _mark(self, lease: Lease, vm: str) -> None:
        lease.vm, lease.hung = vm or lease.vm, True
        self._hung.add(lease)
        self._version += 1

    def _drop(self, lease: Lease) -> None:
        lease.out = lease.hung = False
        self._leases.discard(lease)
        self._hung.discard(lease)
        self._version += 1

    # -- for leases

    def end(self, lease: Lease) -> None:
        """See ``Lease.release``."""
        with self._lock:
            if lease.out:
                self._drop(lease)

    def leave(self, lease: Lease) -> None:
        """See ``Lease.leave_behind``."""
        with self._lock:
            if lease.out and not (lease.hung and lease.vm):
                self._drop(lease)
            elif lease.out:
                lease.kind = Kind.FOREIGN

    def hang(self, lease: Lease, vm: str) -> None:
        """See ``Lease.abandon``."""
        with self._lock:
            if lease.out:
                self._mark(lease, vm)

    def move(self, lease: Lease) -> None:
        """See ``Lease.move_on``."""
        with self._lock:
            if lease.out:
                lease.vm = ""
