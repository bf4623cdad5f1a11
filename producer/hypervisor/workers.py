"""Carries out what the sampling thread decides: opens workers, hands them their queries, retires them. The edge to libvirt's threads."""

from __future__ import annotations

import threading
import time
from typing import Final

import libvirt

from virtflow.producer.hypervisor.connection import Opener, Prepare, Worker
from virtflow.producer.hypervisor.mailbox import Inbox
from virtflow.producer.hypervisor.messages import FindVersions, Lost, Open, Retire, Submit, VersionsFound
from virtflow.producer.hypervisor.queries import versions


class Workers:
    """The workers of one daemon. Belongs to the sampling thread; the workers' threads answer through the inbox."""

    def __init__(self, opener: Opener, inbox: Inbox, prepare: dict[str, Prepare]) -> None:
        """``prepare`` says what is done with a new connection, by the worker's name."""
        self._opener: Final = opener
        self._inbox: Final = inbox
        self._prepare: Final = prepare
        self._workers: dict[int, Worker] = {}

    def perform(self, action: Open | Submit | Retire | FindVersions) -> None:
        """Carry out an action; returns at once."""
        match action:
            case Open(number, name):
                self._workers[number] = Worker(number, name, self._opener, self._inbox, self._prepare.get(name))
            case Submit(number, call, query):
                self._workers[number].submit(call, query)
            case Retire(number):
                if (worker := self._workers.get(number)) is not None:  # it may have ended by itself
                    worker.retire()
            case FindVersions():
                threading.Thread(target=self._find_versions, name="libvirt-versions", daemon=True).start()

    def lost(self) -> list[Lost]:
        """The workers whose connections do not stand any more; asking them costs no call. Workers that have ended are forgotten."""
        self._workers = {number: worker for number, worker in self._workers.items() if not worker.ended}
        return [Lost(number) for number, worker in self._workers.items() if worker.lost]

    def close(self, seconds: float) -> bool:
        """Wait for the threads of retired workers to end; False when one is still in a call that does not return."""
        until = time.monotonic() + seconds
        ended = [worker.join(until - time.monotonic()) for worker in self._workers.values()]
        return all(ended)

    def _find_versions(self) -> None:
        """In a thread of its own: libvirt may take seconds to look at its QEMU the first time, and nothing waits for that."""
        found = "", ""
        try:
            connection = self._opener.connect(self._opener.config.uri)
            try:
                found = versions(connection)
            finally:
                connection.close()
        except libvirt.libvirtError:
            pass
        self._inbox.put(VersionsFound(*found))
