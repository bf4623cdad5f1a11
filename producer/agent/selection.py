"""Which VMs may be asked: pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from virtflow.runtime.settings import Guest


def wanted(settings: Guest) -> bool:
    """Whether the settings ask for anything that the process apart is there for; else it does not exist."""
    return asks(settings) or settings.balloon_period_seconds > 0


def asks(settings: Guest) -> bool:
    """Whether any agent is to be asked: all VMs', or those of the VMs that are named."""
    return settings.enabled or _names_some(settings)


def _names_some(settings: Guest) -> bool:
    return bool(settings.names or settings.uuids or settings.metadata)


def allowed(settings: Guest, uuid: str, name: str, metadata: Sequence[str] | None) -> bool:
    """Whether this VM is one of those meant: all, where none is named; else by its name, its UUID or a namespace of its metadata.

    Where its metadata is not known (None), it may be one of those, if there are any to be known by it.
    """
    if not _names_some(settings):
        return True
    return (
        uuid in settings.uuids
        or any(fnmatchcase(name, pattern) for pattern in settings.names)
        or (bool(settings.metadata) if metadata is None else any(namespace in settings.metadata for namespace in metadata))
    )
