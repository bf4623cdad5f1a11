"""libvirt's events about VMs: registered once per connection, put into the inbox as they come.

The callbacks run in libvirt's event loop and must return at once: they decide nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import libvirt

from virtflow.producer.hypervisor.mailbox import Happened, Inbox
from virtflow.schemas import states

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

TRANSIT: Final = (
    (states.PAUSED, states.PAUSED_MIGRATION),
    (states.PAUSED, states.PAUSED_STARTING_UP),
    (states.RUNNING, states.RUNNING_MIGRATED),
    (states.SHUT_OFF, states.SHUT_OFF_MIGRATED),
)
"""States, each with its reason, that only a migration leads to."""

CHANGES_DESCRIPTION: Final = frozenset({"lifecycle", "device_removed", "device_added", "metadata_change", "tray_change", "block_job_2"})
"""After these the VM's XML may say something else."""


def register(connection: Any, inbox: Inbox) -> int:  # noqa: ANN401, the binding has no types
    """Have every event of the connection's VMs put into ``inbox``; how many kinds libvirt agreed to tell."""
    agreed = 0
    for kind in KINDS:
        number = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{kind}", None)
        if number is None:
            continue
        try:
            connection.domainEventRegisterAny(None, number, _putting(kind.lower(), inbox), None)
        except libvirt.libvirtError as error:
            _LOGGER.info("libvirt does not tell event %s: %s", kind.lower(), error)
            continue
        agreed += 1
    return agreed


def _putting(what: str, inbox: Inbox) -> Callable[..., None]:
    def put(connection: Any, domain: Any, *details: Any) -> None:  # noqa: ANN401, the binding has no types
        del connection
        inbox.put(Happened(domain.UUIDString(), domain.name(), what, details[:-1], time.time()))

    return put


def in_transit(data: Mapping[str, object]) -> tuple[int, int] | None:
    """State and reason of a VM that migrates or has migrated, from its bulk statistics; None for any other."""
    found = data.get("state.state"), data.get("state.reason")
    return next((known for known in TRANSIT if known == found), None)
