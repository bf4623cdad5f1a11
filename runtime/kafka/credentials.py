"""Notices that the credentials of Kafka clients were replaced: the files of secrets, certificate, key, pass phrase and certificate authorities.

librdkafka reads these files when a client is built, and never again. Therefore who owns a client builds another one when they have changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from virtflow.runtime.kafka.clients import OAUTHBEARER, sasl_settings, tls_context
from virtflow.runtime.named_files import Signature, signature
from virtflow.runtime.settings import Kafka
from virtflow.schemas.errors import SettingError

LOOK_SECONDS: Final = 2.0
"""How often the files are looked at."""
RETIRE_SECONDS: Final = 3.0
"""How long a client with the old credentials may take to deliver what it has: after that the next one sends it."""

Built = TypeVar("Built")
_LOGGER: Final = logging.getLogger("virtflow.kafka")


class Credentials:
    """The files as they were when a client was built. Belongs to the thread that owns the client."""

    def __init__(self, kafka: Kafka, clock: Callable[[], float] = time.monotonic) -> None:
        """To be made before the client is built; ``clock`` returns monotonic seconds."""
        self._kafka = kafka
        self._clock = clock
        self._files = _files(kafka)
        self._known: Signature = signature(self._files)
        self._looked = clock()

    def renewed(self) -> bool:
        """Whether the files were replaced since the client was built or this was true last, and can be used: the client is to be built again.

        Files that do not fit together, since only some of them have been replaced, or that can't be read are looked at again later.
        """
        now = self._clock()
        if not self._files or now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        if (found := signature(self._files)) == self._known:
            return False
        try:
            sasl_settings(self._kafka)
            if "SSL" in self._kafka.security_protocol:
                tls_context(self._kafka)
        except SettingError as error:
            _LOGGER.warning("the credentials for the brokers were changed and can't be used, those before stay: %s", error)
            return False
        self._known = found
        _LOGGER.info("the credentials for the brokers were changed: connecting with the new ones")
        return True

    def fresh(self, build: Callable[[], Built]) -> Built | None:
        """What ``build`` makes of the files where a client is to be built again, None while there is no reason."""
        if not self.renewed():
            return None
        try:
            return build()
        except SettingError:  # a file has gone this moment: the next look finds what became of it
            self._known = ()
            return None


def _files(kafka: Kafka) -> tuple[Path, ...]:
    """The files that the security protocol has a use for; not a token's, which is read at each use."""
    named = []
    if "SASL" in kafka.security_protocol:
        tokens = kafka.sasl_mechanism == OAUTHBEARER
        named = [kafka.oauth_client_secret_file, kafka.oauth_ca_file] if tokens else [kafka.sasl_password_file]
    if "SSL" in kafka.security_protocol:
        named += [kafka.tls_ca_file, kafka.tls_certificate_file, kafka.tls_key_file, kafka.tls_key_password_file]
    return tuple(Path(name) for name in named if name)
