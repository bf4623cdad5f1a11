"""A TCP connection on its way to be a TLS connection. Until its handshake is complete it counts least: anyone can open a thousand of them."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Final, Protocol, cast

LOGGER: Final = logging.getLogger("virtflow.web")
SHUTDOWN_SECONDS: Final = 1.0
"""How long a client may take to say goodbye."""


class Shaken(Protocol):
    """Who is told how a handshake ends."""

    def shaken(self, handshake: Handshake, peer: object) -> bool:
        """It is complete, with the client's certificate as ``getpeercert`` gives it; False refuses it."""
        ...

    def failed(self, handshake: Handshake) -> None:
        """It ended without success."""
        ...


class Handshake(asyncio.Protocol):
    """Upgrades its connection and hands it to ``protocol``, which never sees a connection without TLS."""

    def __init__(self, protocol: asyncio.Protocol, context: ssl.SSLContext, seconds: float, owner: Shaken) -> None:
        """``seconds`` is how long it may take."""
        self.protocol = protocol
        self.since = asyncio.get_running_loop().time()
        self._context = context
        self._seconds = seconds
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the handshake."""
        self._transport = cast("asyncio.Transport", transport)
        self._task = asyncio.get_running_loop().create_task(self._shake(self._transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """Lost before it began."""
        del exc
        self._owner.failed(self)

    def end(self, last_words: bytes = b"") -> None:
        """Closes at once: without TLS there is nobody to say something to."""
        del last_words
        if self._transport is not None:
            self._transport.abort()

    async def _shake(self, transport: asyncio.Transport) -> None:
        early = _Early()
        try:
            tls = await asyncio.get_running_loop().start_tls(
                transport,
                early,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._seconds,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except OSError as error:
            LOGGER.debug("a connection without TLS handshake: %s", error)
            self._owner.failed(self)
            return
        if tls is None or early.lost:  # lost during its handshake
            self._owner.failed(self)
        elif self._owner.shaken(self, tls.get_extra_info("peercert")):
            tls.set_protocol(self.protocol)
            self.protocol.connection_made(tls)
            early.hand_over(self.protocol)
        else:
            tls.abort()


class _Early(asyncio.Protocol):
    """Keeps what a client sends right behind its handshake: Python 3.11 delivers it before the upgrade returns."""

    def __init__(self) -> None:
        self._calls: list[Callable[[asyncio.Protocol], object]] = []
        self.lost = False

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self._calls.append(lambda protocol: protocol.data_received(data))

    def eof_received(self) -> bool | None:
        """Nothing more comes."""
        self._calls.append(lambda protocol: protocol.eof_received())
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        del exc
        self.lost = True

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Repeats all of it to the connection's own protocol."""
        for call in self._calls:
            call(protocol)
