"""Lets requests in or refuses them, by the rules in force. One guard for each server; it belongs to the server's event loop."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web

from virtflow.runtime.access.passwords import BusyError, Login, Passwords, Verify
from virtflow.runtime.access.rights import Right, right_for, token_digest
from virtflow.runtime.access.rules import Rules, read_rules, unusable, weakened
from virtflow.runtime.access.tls import peer_names
from virtflow.runtime.access.web_config import Rate
from virtflow.runtime.named_files import signature
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Web as WebSettings
from virtflow.schemas.errors import SettingError

LOGGER: Final = logging.getLogger("virtflow.web")
RESTART: Final = "restart the service if that is meant"

Trusted = Callable[[Mapping[str, str]], bool]
"""Tells from a request's headers whether its service knows who asks."""


class Guard:
    """The rules of one server, and what it needs to keep them. An open one is made without settings."""

    def __init__(
        self,
        settings: WebSettings | None = None,
        metrics: OwnMetrics | None = None,
        *,
        trusted: Trusted | None = None,
        verify: Verify | None = None,
    ) -> None:
        """``trusted`` lets requests use the history by credentials that only the service knows; ``verify`` is bcrypt's where it is None.

        Raises ``SettingError`` for settings or files that can't be used.
        """
        self._settings = settings or WebSettings()
        self._trusted = trusted
        self._current = metrics.gauge("virtflow_web_config_current") if metrics else None
        count = metrics.counter("virtflow_web_password_comparisons_total").inc if metrics else lambda: None
        self._passwords = Passwords(count, verify)
        self.rules: Rules = read_rules(self._settings)
        self.generation = 0
        self._signature = signature(self.rules.files)
        self._failed = False
        self._bucket = _Bucket(self.rules.rate)
        self._tell_current(current=True)

    @property
    def context(self) -> ssl.SSLContext | None:
        """TLS for a new connection, by the newest files; None for plain HTTP."""
        self.refresh()
        return self.rules.context

    def refresh(self, *, again: bool = False) -> None:
        """Takes new rules where a file has changed; the old ones stay where the new can't be used, or would open what was closed.

        With ``again`` files that could not be used are read once more: what they lacked may be there now.
        """
        if (found := signature(self.rules.files)) == self._signature and not (again and self._failed):
            return
        self._signature = found
        try:
            rules = read_rules(self._settings)
        except SettingError as error:
            self._keep(unusable(error))
            return
        if why := weakened(self.rules, rules):
            self._keep(f"{why}; {RESTART}")
            return
        if rules.rate != self.rules.rate:
            self._bucket = _Bucket(rules.rate)
        if rules.files != self.rules.files:
            self._signature = signature(rules.files)
        self.rules = rules
        self.generation += 1
        self._tell_current(current=True)
        LOGGER.info("the web configuration has been read again")

    def close(self) -> None:
        """Lets the thread that compares passwords go."""
        self._passwords.close()

    async def refusal(self, request: web.Request, now: float) -> web.Response | None:
        """The answer to a request that may not pass, None for one that may; ``now`` is seconds of a monotonic clock."""
        self.refresh()
        resource = request.match_info.route.resource
        right = Right.METRICS if resource is None else right_for(request.method, resource.canonical)
        if right is None:
            return None
        if not self._bucket.take(now):
            return _refused(429, "too many requests")
        try:
            return await self._judged(request, right)
        except BusyError as error:
            return _refused(429, str(error))

    async def _judged(self, request: web.Request, right: Right) -> web.Response | None:
        if right is Right.HISTORY and self._trusted is not None and self._trusted(request.headers):
            return None
        names = await self._names(request)
        if names is None:
            answer = _refused(401, "say who asks: a user and a password, or a token")
            answer.headers.extend(_challenges(self.rules))
            return answer
        if right not in self.rules.rights.of(names):
            return _refused(403, f"this path needs the right {right} (setting web.rights)")
        return None

    async def _names(self, request: web.Request) -> frozenset[str] | None:
        """Whose request it is; no name for anyone where nobody has to be known; None for one who is not known."""
        rules = self.rules
        if rules.secrets:
            return await self._by_header(request)
        transport = request.transport
        names = peer_names(transport.get_extra_info("peercert")) if transport is not None else frozenset()
        return None if rules.closed and not names else names

    async def _by_header(self, request: web.Request) -> frozenset[str] | None:
        given = request.headers.getall("Authorization", [])
        scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        rules = self.rules
        if scheme.lower() == "bearer":
            name = rules.tokens.get(token_digest(credentials.strip().encode("utf-8", "surrogateescape")))
            return None if name is None else frozenset({name})
        login = _login(credentials) if scheme.lower() == "basic" else None
        if login is None or not rules.users or not await self._passwords.right(rules.users, login, _client(request.remote)):
            return None
        return frozenset({login.user})

    def _keep(self, why: str) -> None:
        self._tell_current(current=False)
        LOGGER.error("the web configuration was changed and can't be used, the one before stays: %s", why)

    def _tell_current(self, *, current: bool) -> None:
        self._failed = not current
        if self._current is not None:
            self._current.set(float(current))


class _Bucket:
    """A token bucket; no limit without a rate."""

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._tokens = float(rate.burst) if rate else 0.0
        self._filled: float | None = None

    def take(self, now: float) -> bool:
        """Whether one request more may pass at ``now``."""
        if self._rate is None:
            return True
        passed = 0.0 if self._filled is None else max(0.0, now - self._filled)
        self._filled = now
        self._tokens = min(float(self._rate.burst), self._tokens + passed / self._rate.interval_seconds)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def _login(credentials: str) -> Login | None:
    """User and password of HTTP basic authentication (RFC 7617); None where the text is none."""
    try:
        user, colon, password = base64.b64decode(credentials.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return Login(user.decode("utf-8", "surrogateescape"), password) if colon else None


def _client(remote: str | None) -> str:
    """Who shares one turn: an IPv4 address, or a network of IPv6 (/64), which one host has whole."""
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _challenges(rules: Rules) -> list[tuple[str, Any]]:
    ways = [*(["Basic"] if rules.users else []), *(["Bearer"] if rules.tokens else [])]
    return [("WWW-Authenticate", way) for way in ways]


def _refused(status: int, why: str) -> web.Response:
    answer = web.Response(text=why + "\n", status=status)
    if status == 429:  # noqa: PLR2004, HTTP's own
        answer.headers["Retry-After"] = "1"
    return answer
