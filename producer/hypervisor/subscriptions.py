"""libvirt's events about VMs: registered once per connection, put into the inbox as they come.

The callbacks run in libvirt's event loop and must return at once: they decide nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import libvirt

from virtflow.producer.hypervisor.mailbox import Outlet
from virtflow.producer.types import HypervisorEvent

_LOGGER: Final = logging.getLogger(__name__)

KINDS: Final = (
    "LIFECYCLE",
    "REBOOT",
    "WATCHDOG",
    "IO_ERROR_REASON",
    "CONTROL_ERROR",
    "BALLOON_CHANGE",
    "DEVICE_REMOVED",
    "DEVICE_REMOVAL_FAILED",
    "DEVICE_ADDED",
    "AGENT_LIFECYCLE",
    "MIGRATION_ITERATION",
    "JOB_COMPLETED",
    "METADATA_CHANGE",
    "TRAY_CHANGE",
    "BLOCK_JOB_2",
    "BLOCK_THRESHOLD",
    "MEMORY_FAILURE",
)
"""The events that are listened to; a libvirt that lacks one is asked for the others."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """The callbacks of one connection. Each keeps the connection open, whoever closes it: libvirt-python counts them as users of it."""

    connection: Any
    callbacks: tuple[int, ...]

    def end(self) -> None:
        """Deregister the callbacks, before the connection is closed; in vain where it is lost already."""
        for callback in self.callbacks:
            with suppress(libvirt.libvirtError):
                self.connection.domainEventDeregisterAny(callback)


def register(connection: Any, inbox: Outlet) -> Subscription:  # noqa: ANN401, the binding has no types
    """Have every event of the connection's VMs put into ``inbox``; the callbacks are those kinds that libvirt agreed to report."""
    agreed = []
    for kind in KINDS:
        number = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{kind}", None)
        if number is None:
            continue
        try:
            agreed.append(connection.domainEventRegisterAny(None, number, _putting(kind.lower(), inbox), None))
        except libvirt.libvirtError as error:
            _LOGGER.info("libvirt does not report event %s: %s", kind.lower(), error)
    return Subscription(connection, tuple(agreed))


def _putting(what: str, inbox: Outlet) -> Callable[..., None]:
    def put(connection: Any, domain: Any, *details: Any) -> None:  # noqa: ANN401, the binding has no types
        del connection
        inbox.put(HypervisorEvent(domain.UUIDString(), domain.name(), what, details[:-1], time.time()))

    return put
