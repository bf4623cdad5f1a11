"""Certificates of a test's own: an authority, and what it signs, as PEM files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

SERVER_NAMES = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Pair:
    """Files of a certificate and of its key (PKCS #8, for this user alone)."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates into a folder. ``file`` is its own certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        """Makes the authority; ``folder`` is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA(organization_name=f"virtflow test {name}")
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(
        self, file: str, *names: str, common_name: str | None = None, begins: datetime | None = None, ends: datetime | None = None
    ) -> Pair:
        """A certificate for host names, addresses or mail addresses; files of that name are replaced, each at once."""
        leaf = self._ca.issue_cert(*names, common_name=common_name, not_before=begins, not_after=ends)
        pair = Pair(self._folder / f"{file}.pem", self._folder / f"{file}-key.pem")
        key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
        _replace(pair.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        _replace(pair.certificate, b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        return pair

    def server(self, file: str = "server") -> Pair:
        """A certificate for servers on this machine."""
        return self.issue(file, *SERVER_NAMES)

    def trusting(self, client: Pair | None = None) -> ssl.SSLContext:
        """A client's context that trusts this authority, and shows a certificate of its own where one is given."""
        context = ssl.create_default_context(cafile=str(self.file))
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        return context


def _replace(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.chmod(0o600)
    part.replace(path)
