"""QEMU's own status of its migrations, where the settings allow it.

Libvirt tells a read-only client that a migration has completed, and nothing when it has not: a cancelled and a failed one look the
same. QEMU's ``MIGRATION`` event tells them apart, but libvirt hands it on only to a connection that may write. Nothing is ever
written on this one; it listens. Source: libvirt-qemu's ``virConnectDomainQemuMonitorEventRegister``, QEMU's ``MigrationStatus``.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress
from typing import Any, Final

import libvirt

from virtflow.producer.hypervisor.mailbox import Inbox
from virtflow.producer.types import HypervisorEvent
from virtflow.schemas.jobs import Kind

EVENT: Final = "MIGRATION"
STATUS_LENGTH: Final = 32

_LOGGER: Final = logging.getLogger(__name__)

_Listening = tuple[Any, int]
"""A connection, and its callback, which keeps it open, whoever closes it, until it is deregistered."""


class QemuStatus:
    """The listening connection beside the read-only one; opened again with it. ``listen`` runs in a worker's thread, hence the lock."""

    def __init__(self, uri: str, inbox: Inbox) -> None:
        """Nothing is opened before ``listen``."""
        self._uri = uri
        self._inbox = inbox
        self._lock = threading.Lock()
        self._listening: _Listening | None = None

    def listen(self) -> None:
        """Opens the connection and registers; where that is not allowed a warning says so, and everything else goes on."""
        self.close()
        connection = None
        try:
            import libvirt_qemu

            connection = libvirt.open(self._uri)
            callback = libvirt_qemu.qemuMonitorEventRegister(connection, None, EVENT, self._put, None, 0)
        except (libvirt.libvirtError, ImportError) as error:
            _LOGGER.warning(
                "QEMU's migration status can't be listened to: %s; a migration that fails or is cancelled is shown as incomplete", error
            )
            # Another worker may listen by now: its connection is not this one's to close.
            if connection is not None:
                _close(connection)
        else:
            self._replace((connection, callback))

    def close(self) -> None:
        """Lets go of the connection."""
        self._replace(None)

    def _replace(self, new: _Listening | None) -> None:
        with self._lock:
            before, self._listening = self._listening, new
        if before is not None:
            import libvirt_qemu

            connection, callback = before
            with suppress(libvirt.libvirtError):
                libvirt_qemu.qemuMonitorEventDeregister(connection, callback)
            _close(connection)

    def _put(self, *arguments: Any) -> None:  # noqa: ANN401, the binding has no types
        """The callback: connection, domain, event, seconds, microseconds, details as JSON, opaque."""
        _, domain, _, seconds, micros, details, _ = arguments
        at = seconds + micros / 1e6 if seconds >= 0 and micros >= 0 else time.time()
        self._inbox.put(HypervisorEvent(domain.UUIDString(), domain.name(), Kind.STATUS.value, (status_of(details),), at))


def _close(connection: Any) -> None:  # noqa: ANN401, the binding has no types
    with suppress(libvirt.libvirtError):
        connection.close()


def status_of(details: str | None) -> str:
    """The status in the event's details; "" where there is none."""
    with suppress(json.JSONDecodeError, AttributeError, TypeError, RecursionError):
        return str(json.loads(details or "{}").get("status", ""))[:STATUS_LENGTH]
    return ""
