"""Certificate authorities of a test's own, and certificates that they sign: by openssl, valid for a day."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DAYS: Final = "1"
_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, both PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority in a folder, under a name."""

    def __init__(self, folder: Path, name: str) -> None:
        """Makes its key and certificate."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.own = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
        uses = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        _openssl("req", "-x509", *_KEY, "-days", DAYS, "-subj", f"/CN={name}", "-keyout", self.own.key, "-out", self.own.certificate, *uses)

    def signed(self, name: str, *, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = (), file: str = "") -> Certificate:
        """A certificate for a client of that name in these groups, or for a server where it has hosts (``DNS:...``, ``IP:...``)."""
        made = Certificate(self._folder / f"{file or name}.crt", self._folder / f"{file or name}.key")
        request, extensions = made.key.with_suffix(".csr"), made.key.with_suffix(".ext")
        uses = ["extendedKeyUsage=" + ("serverAuth" if hosts else "clientAuth"), *(["subjectAltName=" + ",".join(hosts)] if hosts else [])]
        extensions.write_text("\n".join(uses) + "\n")
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={name}"
        _openssl("req", *_KEY, "-subj", subject, "-keyout", made.key, "-out", request)
        ours = ("-CA", self.own.certificate, "-CAkey", self.own.key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *ours, "-days", DAYS, "-extfile", extensions, "-out", made.certificate)
        return made


def key_pair(folder: Path, name: str) -> Certificate:
    """A private key, and its public half in the certificate's place."""
    made = Certificate(folder / f"{name}.pub", folder / f"{name}.key")
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", made.key)
    _openssl("ec", "-in", made.key, "-pubout", "-out", made.certificate)
    return made


def _openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
