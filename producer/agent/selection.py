"""Selection of the VMs whose guest agents may be asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from virtflow.runtime.settings import Guest


def wanted(settings: Guest) -> bool:
    """Whether any setting needs the helper process; without one it is not started."""
    return asks(settings) or settings.balloon_period_seconds > 0


def asks(settings: Guest) -> bool:
    """Whether any guest agent is to be asked: of all VMs, or of the VMs that the settings name."""
    return settings.enabled or _names_some(settings)


def _names_some(settings: Guest) -> bool:
    return bool(settings.names or settings.uuids or settings.metadata)


def allowed(settings: Guest, uuid: str, name: str, metadata: Sequence[str] | None) -> bool:
    """Whether the settings select this VM: every VM where none is named, else by name, UUID or a namespace of its metadata.

    A VM whose metadata is not known (None) counts as selected where the settings select by metadata.
    """
    if not _names_some(settings):
        return True
    return (
        uuid in settings.uuids
        or any(fnmatchcase(name, pattern) for pattern in settings.names)
        or (bool(settings.metadata) if metadata is None else any(namespace in settings.metadata for namespace in metadata))
    )
