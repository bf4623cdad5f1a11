"""Which daemons have appeared, moved or gone since the last scan. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from virtflow.producer.daemons.sockets import DaemonSocket, Identity, Scan


@dataclass(frozen=True, slots=True)
class Changes:
    """What a scan changes: new sockets, known ones that another path leads to now, and those that are gone.

    ``heirs`` has, for a new socket in the place of one that is gone, the one that it replaces: a daemon that was started again.
    """

    new: tuple[DaemonSocket, ...] = ()
    moved: tuple[DaemonSocket, ...] = ()
    gone: tuple[Identity, ...] = ()
    heirs: Mapping[Identity, Identity] | None = None

    def replaces(self, identity: Identity) -> Identity | None:
        """The socket that this new one replaces, if any."""
        return (self.heirs or {}).get(identity)


def changes(known: Mapping[Identity, str], scan: Scan) -> Changes:
    """Compare what is known, each socket with its path, with a scan. A scan that is not complete takes nothing away."""
    found = {one.identity: one for one in scan.sockets}
    gone = tuple(identity for identity in known if identity not in found) if scan.complete and not scan.left_out else ()
    new = tuple(one for identity, one in found.items() if identity not in known)
    places = {known[identity]: identity for identity in gone}
    heirs = {one.identity: places[one.path] for one in new if one.path in places}
    moved = tuple(one for identity, one in found.items() if known.get(identity, one.path) != one.path)
    return Changes(new, moved, gone, heirs)
