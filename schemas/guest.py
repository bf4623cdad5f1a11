"""The words for what the guest's agent has not told, and for who told a VM's addresses: part of the contract, shown as labels."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class GuestReason(StrEnum):
    """Why a VM's agent has no newer answer."""

    NOT_RUNNING = "not_running"
    """The VM does not run."""
    NO_CHANNEL = "no_channel"
    """The VM's XML has no channel for the agent."""
    DISCONNECTED = "disconnected"
    """The channel is there, nobody in the guest listens on it."""
    WAITING = "waiting"
    """Not asked yet: its turn is to come, or the host's budget is spent."""
    TIMEOUT = "timeout"
    """The agent did not answer in time."""
    BLOCKED = "blocked"
    """The agent does not know the command, or does not allow it."""
    MALFORMED = "malformed"
    """The answer was none that libvirt or virtflow understands."""
    BUSY = "busy"
    """Somebody else's call to the agent is under way, or the VM's own lock is taken."""
    SUSPECT = "suspect"
    """libvirt went away while this VM was asked: it is left alone for long."""
    FAILED = "failed"
    """libvirt refused the call for a reason of its own."""
    CAPPED = "capped"
    """No further call may be lost on this host."""


class AddressSource(StrEnum):
    """Who told a VM's addresses."""

    AGENT = "agent"
    LEASE = "lease"
    ARP = "arp"


LARGEST_BYTES: Final = 2**60
"""No filesystem is larger: a number above is none."""
TEXT_LENGTH: Final = 128
FILESYSTEMS: Final = 32
INTERFACES: Final = 32
ADDRESSES: Final = 16
"""Addresses of one interface."""
