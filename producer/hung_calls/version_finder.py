"""The versions on the node, asked for after each connection: pure.

libvirt may take seconds to look at its QEMU the first time. So the question goes by a connection and a thread of its own, one at a time,
and as it opens a connection it needs a lease of the budget.
"""

from __future__ import annotations

from virtflow.producer.hung_calls.budget import CallBudget, Kind, Lease
from virtflow.producer.hung_calls.reconnecting import Outbox
from virtflow.producer.hypervisor.messages import FindVersions, VersionsFound
from virtflow.producer.records.node_health import Versions
from virtflow.runtime.version import version


class VersionFinder:
    """What is known of the versions, and when they are asked for."""

    def __init__(self, outbox: Outbox, budget: CallBudget, timeout: float) -> None:
        """A question that takes longer than ``timeout`` seconds counts as hung."""
        self.versions = Versions(version())
        self.wanted = False
        self._outbox = outbox
        self._budget = budget
        self._timeout = timeout
        self._began = 0.0
        self._lease: Lease | None = None

    def tick(self, now: float) -> None:
        """Ask once that is wanted and the budget has room."""
        if self._lease is not None:
            if not self._lease.hung and now - self._began >= self._timeout:
                self._lease.abandon()
        elif self.wanted and (lease := self._budget.acquire(Kind.OPENING, spare=min(1, self._budget.limit - 1))) is not None:
            self.wanted, self._lease, self._began = False, lease, now
            self._outbox.add(FindVersions())

    def found(self, message: VersionsFound) -> None:
        """The answer has come."""
        self.versions = Versions(version(), message.libvirt, message.hypervisor)
        if self._lease is not None:
            self._lease.release()
            self._lease = None
