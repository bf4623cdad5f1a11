"""Tokens for brokers that want OAUTHBEARER, from a token endpoint (OAuth 2.0, client credentials) or from a file.

librdkafka asks the endpoint by itself. This module does so for aiokafka, which can't, and to find out why a token can't be had; and it gives
librdkafka the token of a file. Both ask in the same way: the id and the secret as HTTP basic authentication, unencoded, and both need a JWT
with ``sub`` and ``exp``. Sources: RFC 6749 section 4.4, RFC 7519 section 4.1, librdkafka's rdkafka_sasl_oauthbearer_oidc.c.
"""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from virtflow.runtime.kafka.clients import client_secret, token_text
from virtflow.runtime.named_files import Signature, signature
from virtflow.runtime.secrets import HIDDEN, plain_url
from virtflow.runtime.settings import Kafka
from virtflow.schemas.errors import EnvironmentProblemError, SettingError

ANSWER_SECONDS: Final = 5.0
"""How long the endpoint may take."""
ANSWER_BYTES: Final = 1_048_576
RENEWED_AT: Final = 0.8
"""The share of a token's life after which another one is fetched, as librdkafka does."""
SOON_SECONDS: Final = 5.0
"""A file whose token has expired is read again within this time."""
OPAQUE_SECONDS: Final = 60.0
"""A file whose token does not say when it expires is read again within this time."""
_WORDS: Final = 160


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A token, which is a secret: its ``text`` is shown nowhere. Times are Unix seconds; ``expires`` is None where it does not say when."""

    text: str
    claims: Mapping[str, Any]
    expires: float | None

    def __repr__(self) -> str:
        """Without the token."""
        return f"<{type(self).__name__} {self}>"

    def __str__(self) -> str:
        """For whom it is, from whom, for which audience and until when."""
        told = [f"{word} {self.claims[key]}" for word, key in (("of", "sub"), ("from", "iss"), ("for", "aud")) if key in self.claims]
        until = "" if self.expires is None else time.strftime("until %Y-%m-%dT%H:%M:%SZ", time.gmtime(self.expires))
        return " ".join([*told, until])[:_WORDS].strip() or "that does not say whose it is"


def parsed(text: str) -> Token:
    """A token with what it says of itself; of one that is no JWT, or does not say when it expires, nothing is known."""
    try:
        body = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        expires = float(claims["exp"])
    except (IndexError, KeyError, ValueError, TypeError, RecursionError):  # what can't be decoded is a ValueError
        return Token(text, {}, None)
    return Token(text, claims, expires) if math.isfinite(expires) else Token(text, {}, None)


class FileToken:
    """librdkafka's ``oauth_cb`` for a token in a file. It never fails, so that building a client waits for nothing: the broker judges the token."""

    def __init__(self, kafka: Kafka, clock: Callable[[], float] = time.time) -> None:
        """``clock`` returns Unix seconds. Raises ``SettingError`` where the file can't be read."""
        self._kafka = kafka
        self._clock = clock
        self._newest = token_text(kafka)

    def __call__(self, config: object) -> tuple[str, float]:
        """The token and when librdkafka has to ask again (it does so after four fifths of that time), in Unix seconds."""
        del config
        try:
            self._newest = token_text(self._kafka)
        except SettingError:  # it is being replaced, or is away for now
            return self._newest, self._clock() + SOON_SECONDS
        expires, now = parsed(self._newest).expires, self._clock()
        return self._newest, now + OPAQUE_SECONDS if expires is None else max(expires, now + SOON_SECONDS)


class Tokens:
    """The newest token, fetched when it is needed. May be used from any thread; one fetches while others wait for it."""

    def __init__(self, kafka: Kafka, clock: Callable[[], float] = time.time) -> None:
        """Fetches nothing yet; ``clock`` returns Unix seconds."""
        self._kafka = kafka
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: Token | None = None
        self._files: Signature = ()
        self._renew_at = 0.0

    def text(self) -> str:
        """A token that has not expired; raises ``EnvironmentProblemError`` or ``SettingError`` where there is none.

        Another one is fetched once four fifths of its life are over, or when the secret's file was replaced. While that fails the last one is
        used for as long as it lives.
        """
        with self._lock:
            files = signature((Path(self._kafka.oauth_client_secret_file),))
            now = self._clock()
            if self._newest is None or now >= self._renew_at or files != self._files or self._kafka.oauth_token_file:
                self._renew(now)
                self._files = files
            assert self._newest is not None
            return self._newest.text

    def _renew(self, now: float) -> None:
        try:
            self._newest = token(self._kafka, now)
        except EnvironmentProblemError:
            if self._newest is None or now >= (self._newest.expires or 0.0) or self._kafka.oauth_token_file:
                raise
        else:
            self._renew_at = now + RENEWED_AT * ((self._newest.expires or now) - now)


def token_provider(kafka: Kafka) -> Any:  # noqa: ANN401, aiokafka is imported only where it is used
    """A token provider for aiokafka. Where no token can be had its connections fail, as if the broker were away, and are tried again."""
    import asyncio

    from aiokafka.abc import AbstractTokenProvider
    from aiokafka.errors import KafkaConnectionError

    tokens = Tokens(kafka)

    class Provider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
        async def token(self) -> str:
            try:
                return await asyncio.to_thread(tokens.text)
            except (EnvironmentProblemError, SettingError) as error:
                raise KafkaConnectionError(str(error)) from error

    return Provider()


def token(kafka: Kafka, now: float) -> Token:
    """A token from the file or the endpoint, at ``now`` (Unix seconds).

    Raises ``EnvironmentProblemError`` where there is none that holds, and ``SettingError`` where a file can't be read.
    """
    if not kafka.oauth_token_file:
        return _fetched(kafka)
    found = parsed(token_text(kafka))
    if found.expires is not None and found.expires <= now:
        why, fix = f"the token has expired: {found}", "have the program that writes it renew it in time, and check this host's clock"
        raise EnvironmentProblemError(thing="token", value=kafka.oauth_token_file, why=why, fix=fix)
    return found


def _fetched(kafka: Kafka) -> Token:
    from http.client import HTTPException
    from urllib import error as errors
    from urllib import parse, request

    from virtflow.runtime.web.client import basic

    secret = client_secret(kafka)
    opener = _opener(kafka)
    asked = {"grant_type": "client_credentials"} | ({"scope": kafka.oauth_scope} if kafka.oauth_scope else {})
    try:
        headers = {"Authorization": basic(kafka.oauth_client_id, secret), "Accept": "application/json"}
        asking = request.Request(kafka.oauth_token_url, parse.urlencode(asked).encode(), headers)  # noqa: S310, the opener knows HTTP alone
        with opener.open(asking, timeout=ANSWER_SECONDS) as reply:
            answer = reply.read(ANSWER_BYTES)
    except errors.HTTPError as error:
        with error:
            raise _refused(kafka, error.code, error.read(ANSWER_BYTES), secret) from error
    except (OSError, HTTPException, ValueError) as error:  # nobody there, no HTTP, or no URL
        raise _unreachable(kafka, error) from error
    try:
        found = parsed(str(json.loads(answer)["access_token"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _problem(kafka, "its answer holds no access_token", _OTHER_URL) from error
    if found.expires is None or not isinstance(found.claims.get("sub"), str):
        raise _problem(kafka, "its token is no JWT with sub and exp", "have it give such tokens: librdkafka takes no others")
    return found


_OTHER_URL: Final = "set kafka.oauth_token_url to the token endpoint of the issuer"


def _opener(kafka: Kafka) -> Any:  # noqa: ANN401, imported only where it is used: a producer has no use for 5 MB of HTTP
    """HTTP and HTTPS, without redirects, which would take the secret elsewhere."""
    import ssl

    from virtflow.runtime.web.client import opener

    try:
        context = ssl.create_default_context(cafile=kafka.oauth_ca_file or None)
    except OSError as error:  # an SSLError is one
        why = f"its authorities can't be read: {error.strerror or error}"
        raise _problem(kafka, why, f"name a file of certificates (PEM) in kafka.oauth_ca_file (now {kafka.oauth_ca_file})") from error
    return opener(context)


def _refused(kafka: Kafka, code: int, body: bytes, secret: str) -> EnvironmentProblemError:
    """The endpoint's own reason (RFC 6749 section 5.2)."""
    try:
        told = json.loads(body)
        name, about = str(told.get("error", "")), str(told.get("error_description", ""))
    except (ValueError, AttributeError, RecursionError):
        name, about = "", ""
    words = ": ".join(filter(None, [f"HTTP {code}", name, about]))
    words = (words.replace(secret, HIDDEN) if secret else words)[:_WORDS]  # some endpoints repeat what they were given
    if name == "invalid_scope":
        return _problem(kafka, f"refuses the scope {kafka.oauth_scope!r}: {words}", "set kafka.oauth_scope to one that the client may have")
    if name in {"invalid_client", "unauthorized_client"} or code == 401:  # noqa: PLR2004, HTTP's number
        file = kafka.oauth_client_secret_file or "none is set"
        fix = f"fix kafka.oauth_client_id, or the secret in kafka.oauth_client_secret_file ({file})"
        return _problem(kafka, f"refuses the client {kafka.oauth_client_id or '(none)'}: {words}", fix)
    return _problem(kafka, f"gives no token: {words}", _OTHER_URL)


def _unreachable(kafka: Kafka, error: Exception) -> EnvironmentProblemError:
    import ssl
    from urllib.error import URLError

    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        authority = kafka.oauth_ca_file or "the system's authorities"
        why = f"TLS: its certificate is not accepted: {reason.verify_message}"
        return _problem(kafka, why, f"set kafka.oauth_ca_file to the authority that signed it (now {authority})")
    if isinstance(reason, ssl.SSLError):
        fix = "check the scheme and the port in kafka.oauth_token_url, and the certificates in kafka.oauth_ca_file"
        return _problem(kafka, f"TLS fails: {reason.reason or reason}", fix)
    return _problem(kafka, f"does not answer: {reason}", "start it, or fix kafka.oauth_token_url")


def _problem(kafka: Kafka, why: str, fix: str) -> EnvironmentProblemError:
    return EnvironmentProblemError(thing="token endpoint", value=str(plain_url(kafka.oauth_token_url)), why=why, fix=fix)
