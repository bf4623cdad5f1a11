"""The TLS of the metrics APIs: the certificate that they show, and the authority that clients' certificates are checked against."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from virtflow.runtime.settings import Adapter
from virtflow.schemas.errors import EnvironmentProblemError

ALPN: Final = ["http/1.1"]


class Certificates:
    """Makes the TLS context, and another one when the files or the authority have changed."""

    def __init__(self, settings: Adapter) -> None:
        """Reads the files; raises ``EnvironmentProblemError`` where they can't be used."""
        self._files = (Path(settings.tls_certificate_file), Path(settings.tls_key_file))
        self._authority = ""
        try:
            self._seen = self._read()
            self.context = self._made()
        except (OSError, ssl.SSLError) as error:
            fix = "set adapter.tls_certificate_file and adapter.tls_key_file to PEM files that this user can read"
            raise EnvironmentProblemError(thing="certificate", value=str(self._files[0]), why=str(error), fix=fix) from error

    def renewed(self, authority: str) -> bool:
        """Whether there is another ``context``: for another authority (PEM), or because the files have changed.

        Raises ``OSError`` or ``ssl.SSLError`` where they can't be used, such as while they are being replaced; the context stays then.
        """
        seen = self._read()
        if seen == self._seen and authority == self._authority:
            return False
        before, self._authority = self._authority, authority
        try:
            self.context = self._made()
        except ssl.SSLError:
            self._authority = before
            raise
        self._seen = seen
        return True

    def _read(self) -> tuple[bytes, ...]:
        return tuple(file.read_bytes() for file in self._files)

    def _made(self) -> ssl.SSLContext:
        """Without an authority no certificate of a client is asked for, and so nobody is trusted."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(ALPN)
        context.load_cert_chain(*self._files)
        if self._authority:
            context.load_verify_locations(cadata=self._authority)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context
