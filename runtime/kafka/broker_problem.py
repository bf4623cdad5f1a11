"""Why a broker can't be used: librdkafka's own reason, classified, with what to do about it.

librdkafka reports what goes wrong with a connection through ``error_cb`` only; the call that waits for an answer just times out. So a
client that reports problems gets a ``Heard`` as its ``error_cb``. Of certificates librdkafka says no more than that one can't be verified: a
handshake of our own brings its names and dates. Source of the texts: librdkafka's rdkafka_broker.c, rdkafka_ssl.c and rdkafka_sasl.c.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from virtflow.runtime.certificates import Certificate, first_certificate
from virtflow.runtime.kafka.clients import OAUTHBEARER
from virtflow.runtime.settings import Kafka
from virtflow.schemas.errors import EnvironmentProblemError, SettingError

KEPT: Final = 50
HANDSHAKE_SECONDS: Final = 2.0
LONGEST: Final = 160
DEFAULT_PORT: Final = 9092

_AWAY: Final = "start the broker, or name another with --bootstrap-servers"
_SERVER: Final = re.compile(r"(?:(?:sasl_)?(?:plaintext|ssl)://)?((?:\[[^\]]*\]|[^/:\s\[\]]+):\d+)(?:/\S*)?: ")
_TIMING: Final = re.compile(r" \(after \d+ms in state [^)]*\)")
_UNSUPPORTED: Final = re.compile("nsupported|not supported")
_ADVICE: Final = re.compile(r": broker certificate could not be verified.*")


class Kind(StrEnum):
    """What is wrong, in the order in which it is reported: the first that was heard of tells most."""

    ACL = "ACL"
    SASL = "SASL"
    TLS = "TLS"
    PROTOCOL = "protocol"
    RESOLVE = "name"
    REFUSED = "refused"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason: its kind, the broker it is about ("" where none is named), and librdkafka's words without times and advice."""

    kind: Kind
    server: str
    words: str


class Heard:
    """An ``error_cb`` that keeps the newest errors of a client. ``append`` is atomic: librdkafka's thread may call while another one reads."""

    def __init__(self) -> None:
        """Nothing has been heard yet."""
        self._errors: deque[Any] = deque(maxlen=KEPT)

    def __call__(self, error: Any) -> None:  # noqa: ANN401, librdkafka's KafkaError
        """Keeps an error."""
        self._errors.append(error)

    def problems(self) -> list[Problem]:
        """What was heard, each reason once."""
        return list(dict.fromkeys(found for error in list(self._errors) if (found := problem_of(error)) is not None))

    @property
    def for_good(self) -> bool:
        """Whether something was heard that waiting does not change."""
        return any(problem.kind in {Kind.ACL, Kind.SASL, Kind.TLS, Kind.RESOLVE} for problem in self.problems())

    def clear(self) -> None:
        """Forgets it all."""
        self._errors.clear()


def problem_of(error: Any) -> Problem | None:  # noqa: ANN401, as above
    """An error as a problem; None for those that only sum up others."""
    name, text = error.name(), str(error.str() or error.name())
    if name == "_ALL_BROKERS_DOWN":
        return None
    found = _SERVER.match(text)
    words = _ADVICE.sub("", _TIMING.sub("", text[found.end() :] if found else text))[:LONGEST]
    return Problem(_kind(name, words), found[1] if found else "", words)


def _kind(name: str, words: str) -> Kind:
    for kind, codes, texts in _SIGNS:
        if name in codes or any(text in words for text in texts):
            return kind
    return Kind.ACL if name.endswith("AUTHORIZATION_FAILED") else Kind.SILENT


_SIGNS: Final[tuple[tuple[Kind, frozenset[str], tuple[str, ...]], ...]] = (
    (Kind.SASL, frozenset({"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"}), ()),
    (Kind.TLS, frozenset({"_SSL"}), ("SSL handshake failed", "SSL routines")),
    (Kind.RESOLVE, frozenset({"_RESOLVE"}), ("Failed to resolve",)),
    (Kind.REFUSED, frozenset(), ("refused",)),
    (Kind.PROTOCOL, frozenset({"_BAD_MSG"}), ("isconnected", "Connection reset", "nvalid response size")),
)
"""What each kind is known by: librdkafka's codes and words, in this order."""


def broker_problem(kafka: Kafka, problems: Iterable[Problem], last: Any = None) -> EnvironmentProblemError:  # noqa: ANN401, as above
    """The error for brokers that can't be used; ``last`` is what the call said that was waited for, and counts where nothing else was heard."""
    heard = list(problems)
    if not heard and last is not None and (found := problem_of(last)) is not None:
        heard = [found]
    ranked = sorted(heard, key=lambda problem: list(Kind).index(problem.kind))
    if kafka.sasl_mechanism == OAUTHBEARER and (lacking := _token_problem(kafka, ranked[0] if ranked else None)) is not None:
        return lacking
    if not ranked:
        return _error(kafka, "does not answer", _AWAY)
    why, fix = _WORDS[ranked[0].kind](kafka, ranked[0])
    return _error(kafka, why, fix)


def _token_problem(kafka: Kafka, first: Problem | None) -> EnvironmentProblemError | None:
    """Why no token can be had, or what the broker does not like in it; None where tokens are not what is wrong.

    librdkafka waits for a token before it connects, so that silence may be the lack of one.
    """
    from virtflow.runtime.kafka import oauth

    if first is not None and first.kind not in {Kind.SASL, Kind.SILENT}:
        return None
    try:
        had = oauth.token(kafka, time.time())
    except EnvironmentProblemError as error:
        return error
    except SettingError as error:
        return EnvironmentProblemError(thing="setting", value=error.key, why=f"{error.value}: {error.why}", fix=error.fix)
    if first is None or first.kind is not Kind.SASL or _UNSUPPORTED.search(first.words):
        return None
    fix = "have the broker accept this issuer and audience, ask for the right ones with kafka.oauth_scope, or check the clocks of both"
    return _error(kafka, f"does not accept the token {had}: {first.words}", fix)


def _error(kafka: Kafka, why: str, fix: str) -> EnvironmentProblemError:
    return EnvironmentProblemError(thing="broker", value=kafka.bootstrap_servers, why=why, fix=fix)


def _acl(kafka: Kafka, problem: Problem) -> tuple[str, str]:
    who = kafka.sasl_username or "this client"
    return f"{who} lacks a right: {problem.words}", "`virtflow topics acls` shows what each service needs, and gives it with --apply"


def _sasl(kafka: Kafka, problem: Problem) -> tuple[str, str]:
    if _UNSUPPORTED.search(problem.words):
        return f"SASL is refused: {problem.words}", "set kafka.sasl_mechanism to one that the broker has"
    file = kafka.sasl_password_file or "none is set"
    fix = f"fix kafka.sasl_username ({kafka.sasl_username or 'empty'}) or the password in kafka.sasl_password_file ({file})"
    return f"SASL is refused: {problem.words}", fix


def _tls(kafka: Kafka, problem: Problem) -> tuple[str, str]:
    if "PLAINTEXT" in problem.words or "wrong version number" in problem.words:
        protocol = "SASL_PLAINTEXT" if kafka.security_protocol.startswith("SASL") else "PLAINTEXT"
        fix = f"name its TLS port with --bootstrap-servers, or set kafka.security_protocol to {protocol}"
        return f"speaks no TLS on this port: {problem.words}", fix
    if "protocol version" in problem.words or "unsupported protocol" in problem.words:
        return f"speaks TLS older than 1.2 only: {problem.words}", "have the broker allow TLS 1.2 or newer (ssl.enabled.protocols)"
    if "certificate required" in problem.words or "bad certificate" in problem.words or "unknown ca" in problem.words.lower():
        fix = "set kafka.tls_certificate_file and kafka.tls_key_file to a certificate whose authority the broker trusts"
        return f"does not accept this client's certificate: {problem.words}", fix
    for server in _concerned(kafka, problem):
        if (found := _verified(kafka, server)) is not None:
            return found
    return f"TLS fails: {problem.words}", "look into the broker's log; `openssl s_client -connect HOST:PORT` shows what it offers"


def _verified(kafka: Kafka, server: str) -> tuple[str, str] | None:
    """What is wrong with a broker's certificate; None where nothing is, or where it can't be had."""
    certificate, why = server_certificate(server, kafka.tls_ca_file)
    if certificate is None or not why:
        return None
    authority = kafka.tls_ca_file or "the system's authorities"
    told = f"TLS: the certificate of {server} is not accepted: {why}; {certificate}"
    if "expired" in why or "not yet valid" in why:
        return told, "give the broker a certificate that is valid today, and check this host's clock"
    if "ostname" in why or "IP address mismatch" in why:
        return (
            told,
            "name the broker by a name that its certificate has, in kafka.bootstrap_servers and in the broker's advertised.listeners",
        )
    return told, f"set kafka.tls_ca_file to the authority that signed it (now {authority})"


def _protocol(kafka: Kafka, problem: Problem) -> tuple[str, str]:
    if (found := _speaks_tls(kafka, problem)) is not None:
        return found
    return f"ends the connection: {problem.words}", _OTHER_PROTOCOL


_OTHER_PROTOCOL: Final = "check kafka.security_protocol: a port for passwords needs SASL_SSL or SASL_PLAINTEXT"


def _speaks_tls(kafka: Kafka, problem: Problem) -> tuple[str, str] | None:
    """What is wrong where a broker speaks TLS and is not spoken to in TLS; None where that is not so."""
    if kafka.security_protocol.endswith("SSL"):
        return None
    for server in _concerned(kafka, problem):
        if server_certificate(server, "")[0] is not None:
            sasl = kafka.security_protocol.startswith("SASL")
            wanted = "SASL_SSL" if sasl else "SSL, or to SASL_SSL where it asks for a password"
            why = f"speaks TLS on this port, and kafka.security_protocol is {kafka.security_protocol}: {problem.words}"
            return why, f"set kafka.security_protocol to {wanted}"
    return None


def _concerned(kafka: Kafka, problem: Problem) -> list[str]:
    return [problem.server] if problem.server else servers(kafka)


def _resolve(kafka: Kafka, problem: Problem) -> tuple[str, str]:
    del kafka
    return (
        f"its name is not known: {problem.words}",
        "fix the host name in kafka.bootstrap_servers (--bootstrap-servers), or this host's DNS",
    )


def _refused(kafka: Kafka, problem: Problem) -> tuple[str, str]:
    del kafka
    return f"does not answer: {problem.words}", _AWAY


def _silent(kafka: Kafka, problem: Problem) -> tuple[str, str]:
    # librdkafka says nothing of a connection that the broker ends at once: what is on the port has to be found out.
    if (found := _speaks_tls(kafka, problem)) is not None:
        return found
    fix = f"{_AWAY}; a firewall drops packets in silence, and so may a port that wants another kafka.security_protocol"
    return f"does not answer: {problem.words}", fix


_WORDS: Final = {
    Kind.ACL: _acl,
    Kind.SASL: _sasl,
    Kind.TLS: _tls,
    Kind.PROTOCOL: _protocol,
    Kind.RESOLVE: _resolve,
    Kind.REFUSED: _refused,
    Kind.SILENT: _silent,
}


def servers(kafka: Kafka) -> list[str]:
    """The brokers of the settings, one by one."""
    return [server.strip() for server in kafka.bootstrap_servers.split(",") if server.strip()]


def server_certificate(server: str, authorities: str) -> tuple[Certificate | None, str]:
    """A server's certificate and why it can't be verified with ``authorities`` (a file; the system's when empty), "" where it can.

    None where no handshake comes about within two seconds.
    """
    host, _, port = server.rpartition(":")
    address = (host.strip("[]"), int(port)) if host and port.isdecimal() else (server, DEFAULT_PORT)
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    shown = _handshake(address, anyone)
    if not isinstance(shown, bytes):
        return None, ""
    try:
        certificate = first_certificate(ssl.DER_cert_to_PEM_cert(shown))
    except ValueError:
        return None, ""
    try:
        trusting = ssl.create_default_context(cafile=authorities or None)
    except (OSError, ValueError) as error:
        return certificate, f"{authorities} has no certificate of an authority: {error}"
    judged = _handshake(address, trusting)
    return certificate, judged if isinstance(judged, str) else ""


def _handshake(address: tuple[str, int], context: ssl.SSLContext) -> bytes | str | None:
    """The server's certificate (DER), or why it is not accepted, or None where there is no TLS."""
    try:
        with (
            socket.create_connection(address, HANDSHAKE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=address[0]) as secured,
        ):
            return secured.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:
        return None
