"""Opens connections to one daemon by the path of its socket, whatever its length, and whether the daemon is a user's or the system's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import libvirt

from virtflow.producer.daemons.sockets import DaemonSocket, listens, within_address
from virtflow.producer.hypervisor.connection import Connection, open_read_only

BAD_PATH: Final = "URI path"
"""What libvirt's error says where a daemon that is not root's is asked for ``/system``, and the other way round."""


def uri_of(path: str, *, privileged: bool) -> str:
    """The URI of the daemon that listens there; a daemon that runs as root takes another one than a user's."""
    return f"qemu+unix:///{'system' if privileged else 'session'}?socket={quote(path)}"


def status_folder(path: str, *, privileged: bool) -> Path:
    """Where a daemon keeps the status of its VMs, beside its socket (source: libvirt's ``virQEMUDriverConfigNew``)."""
    folder = Path(path).parent / "qemu"
    return folder if privileged else folder / "run"


class Connector:
    """Connects to one daemon. ``connect`` is called by the pool's threads, several at once; the sampling thread sets ``path``, one reference."""

    def __init__(
        self, socket: DaemonSocket, open_uri: Callable[[str], Connection] = open_read_only, heard: Callable[[str], bool] = listens
    ) -> None:
        """Nothing is opened. ``heard`` says whether somebody listens at a path."""
        self.path = socket.path
        self.refused = False
        """Whether nobody listened when connecting was tried last."""
        self._privileged = socket.owner == 0
        self._open_uri = open_uri
        self._heard = heard

    @property
    def uri(self) -> str:
        """The URI by which it connects, but for paths that are too long for it."""
        return uri_of(self.path, privileged=self._privileged)

    @property
    def status_folder(self) -> Path:
        """Where the daemon keeps the status of its VMs."""
        return status_folder(self.path, privileged=self._privileged)

    def connect(self, _: str = "") -> Connection:
        """A new connection; raises libvirt's error, or ``OSError`` where the socket's folder is gone."""
        self.refused = False
        try:
            with within_address(self.path) as address:
                return self._connect(address)
        except (libvirt.libvirtError, OSError):
            self.refused = not self._heard(self.path)
            raise

    def _connect(self, address: str) -> Connection:
        privileged = self._privileged
        try:
            return self._open_uri(uri_of(address, privileged=privileged))
        except libvirt.libvirtError as error:
            if BAD_PATH not in str(error):
                raise
        # A user's daemon may be root in a user namespace of its own: its socket's owner does not say so.
        # Another thread may have found out meanwhile: what has worked is noted, not turned over.
        connection = self._open_uri(uri_of(address, privileged=not privileged))
        self._privileged = not privileged
        return connection
