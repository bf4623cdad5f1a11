"""Settings of every Kafka client in one place: the defaults of librdkafka that lose data are changed here and nowhere else.

Source of the settings: librdkafka's CONFIGURATION.md. The mappings go to ``confluent_kafka.Producer`` and ``Consumer`` as they are.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from virtflow.runtime.named_files import secret_of, text_of
from virtflow.runtime.secrets import harmless, scrubbed
from virtflow.runtime.settings import Kafka, Settings
from virtflow.schemas.errors import SettingError
from virtflow.schemas.topics import Topic

if TYPE_CHECKING:
    import ssl

ClientSettings = dict[str, Any]
OAUTHBEARER: Final = "OAUTHBEARER"
"""The SASL mechanism of tokens."""


@dataclass(frozen=True, slots=True)
class Gather:
    """What the broker gathers before it answers a consumer: so many bytes, but for no longer than so many milliseconds.

    Fewer, larger answers cost the broker and the client less CPU time.
    """

    least_bytes: int
    milliseconds: int


AT_ONCE: Final = Gather(1, 500)
"""A message as soon as it is there: what Kafka's clients do unless they are told otherwise."""
LIVE: Final = Gather(131_072, 50)
"""On the way from the hypervisor to ``/metrics``: a message waits for 50 ms at most at each hop."""

_LOGGER: Final = logging.getLogger("virtflow.kafka")

_RECONNECT: Final[ClientSettings] = {
    "reconnect.backoff.ms": 250,
    "reconnect.backoff.max.ms": 2_000,
    "socket.keepalive.enable": True,
    "socket.timeout.ms": 30_000,
    "allow.auto.create.topics": False,
    "log.connection.close": False,
}
_ANSWER_BYTES: Final = 1_048_588
"""Of one answer of a broker at most, as it is sent: what it becomes in memory is several times as much. A larger message still comes."""
_SAFE_PRODUCER: Final[ClientSettings] = {
    "enable.idempotence": True,
    "acks": "all",
    # murmur2 agrees with the Java client's partitioner, so that a key keeps its partition whoever produces.
    "partitioner": "murmur2_random",
    "compression.type": "zstd",
    # The library's default of 3 clears a megabyte of tables for each message and makes them 1 % smaller.
    "compression.level": 1,
    "message.max.bytes": 1_000_000,
}


def topic_name(settings: Settings, topic: Topic) -> str:
    """The topic's name on the broker: the configured prefix and its own name."""
    return settings.topics.prefix + topic.name


def client_settings(settings: Settings) -> ClientSettings:
    """What every librdkafka client needs: brokers, security, reconnection, our log, and the free map of the settings.

    Raises ``SettingError`` where a file with a secret can't be read.
    """
    kafka = settings.kafka
    config: ClientSettings = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "security.protocol": kafka.security_protocol,
        "client.id": "virtflow",
        "logger": _LOGGER,
        **_RECONNECT,
    }
    for key, value in (
        ("sasl.mechanism", kafka.sasl_mechanism),
        *sasl_settings(kafka).items(),
        ("ssl.ca.location", kafka.tls_ca_file),
        ("ssl.certificate.location", kafka.tls_certificate_file),
        ("ssl.key.location", kafka.tls_key_file),
        ("ssl.key.password", key_password(kafka)),
    ):
        if value:
            config[key] = value
    return config | kafka.client


def sasl_settings(kafka: Kafka) -> ClientSettings:
    """What shows the broker who the client is: a user and its password, or where tokens come from. Values may be empty.

    Raises ``SettingError`` where a file with a secret can't be read.
    """
    if kafka.sasl_mechanism != OAUTHBEARER:
        return {"sasl.username": kafka.sasl_username, "sasl.password": password(kafka)}
    if kafka.oauth_token_file:
        from virtflow.runtime.kafka.oauth import FileToken

        return {"oauth_cb": FileToken(kafka)}
    return {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": kafka.oauth_token_url,
        "sasl.oauthbearer.client.id": kafka.oauth_client_id,
        "sasl.oauthbearer.client.secret": client_secret(kafka),
        "sasl.oauthbearer.scope": kafka.oauth_scope,
        "https.ca.location": kafka.oauth_ca_file,
    }


def unusable(kafka: Kafka, reason: str) -> SettingError:
    """The error for client settings that librdkafka refuses: the file of ours that can't be used, else ``reason``, which is what it says."""
    if kafka.security_protocol.endswith("SSL"):
        try:
            tls_context(kafka)
        except SettingError as error:
            return error
    why = scrubbed("kafka.client", kafka.client, reason)
    fix = "fix the settings of section kafka; kafka.client takes what librdkafka's CONFIGURATION.md lists"
    return SettingError(origin="settings", key="kafka.client", value=harmless("kafka.client", kafka.client), why=why, fix=fix)


def snapshot_producer_settings(settings: Settings) -> ClientSettings:
    """A producer for rounds: they are worth sending for two intervals; the ring in front of it keeps the newest."""
    timeout_ms = max(1_000, int(2_000 * settings.producer.interval_seconds))
    return {
        **client_settings(settings),
        **_SAFE_PRODUCER,
        # A round is one message, or a few large ones, and alone in flight: there is nothing to wait for, and waiting costs two more wake-ups.
        "linger.ms": 0,
        "message.timeout.ms": timeout_ms,
        "request.timeout.ms": min(30_000, timeout_ms),
        "queue.buffering.max.messages": 1_000,
        "queue.buffering.max.kbytes": 16_384,
        **settings.kafka.client,
    }


def acknowledged_producer_settings(settings: Settings) -> ClientSettings:
    """A producer whose messages must arrive: it never gives up; the caller bounds what is in flight."""
    return {
        **client_settings(settings),
        **_SAFE_PRODUCER,
        "linger.ms": 20,
        "message.timeout.ms": 0,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 131_072,
        **settings.kafka.client,
    }


def event_producer_settings(settings: Settings) -> ClientSettings:
    """A producer for events: it never gives up, and sends at once; what is in flight is bounded by the caller, what waits is on disk."""
    return {**acknowledged_producer_settings(settings), "linger.ms": 5, "queue.buffering.max.messages": 10_000, **settings.kafka.client}


def consumer_settings(settings: Settings, group: str, gather: Gather | None = None) -> ClientSettings:
    """A consumer that stores no offset by itself and holds bounded memory however large the lag is.

    The broker answers at once where ``gather`` is None, and waits for half a second at most while there is nothing.
    """
    gather = gather or Gather(1, 500)
    return {
        **client_settings(settings),
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "queued.min.messages": 2_000,
        "queued.max.messages.kbytes": settings.kafka.fetch_bytes // 1024,
        "fetch.max.bytes": _ANSWER_BYTES,
        "fetch.message.max.bytes": _ANSWER_BYTES,
        "fetch.min.bytes": gather.least_bytes,
        "fetch.wait.max.ms": gather.milliseconds,
        # By default a partition of which enough waits is not asked again for a second: a backlog comes no faster than the queue's length each second.
        "fetch.queue.backoff.ms": 20,
        "partition.assignment.strategy": "cooperative-sticky",
        **settings.kafka.client,
    }


def probe_settings(settings: Settings, group: str) -> ClientSettings:
    """A consumer that reads single messages, without joining the group, and hears where partitions end."""
    quick = {"fetch.wait.max.ms": 10, "queued.min.messages": 1, "enable.partition.eof": True}
    return {**consumer_settings(settings, group), **quick, **settings.kafka.client}


def password(kafka: Kafka) -> str:
    """The SASL password from its file, or "" where none is set."""
    if not kafka.sasl_password_file:
        return ""
    return secret_of(kafka.sasl_password_file, "kafka.sasl_password_file")


def client_secret(kafka: Kafka) -> str:
    """The secret for the token endpoint from its file, or "" where none is set."""
    if not kafka.oauth_client_secret_file:
        return ""
    return secret_of(kafka.oauth_client_secret_file, "kafka.oauth_client_secret_file")


def token_text(kafka: Kafka) -> str:
    """The token that lies in a file. Raises ``SettingError`` where it can't be read."""
    return secret_of(kafka.oauth_token_file, "kafka.oauth_token_file").strip()


def key_password(kafka: Kafka) -> str:
    """The pass phrase of the TLS key from its file, or "" where none is set."""
    if not kafka.tls_key_password_file:
        return ""
    return secret_of(kafka.tls_key_password_file, "kafka.tls_key_password_file")


def tls_context(kafka: Kafka) -> ssl.SSLContext:
    """The TLS settings for clients that are not librdkafka (aiokafka under faust). Raises ``SettingError`` where a file can't be used."""
    import ssl

    for path, key in (
        (kafka.tls_ca_file, "kafka.tls_ca_file"),
        (kafka.tls_certificate_file, "kafka.tls_certificate_file"),
        (kafka.tls_key_file, "kafka.tls_key_file"),
    ):
        if path:
            text_of(path, key)
    try:
        context = ssl.create_default_context(cafile=kafka.tls_ca_file or None)
    except ssl.SSLError as error:
        raise _unusable("kafka.tls_ca_file", kafka.tls_ca_file, str(error), "name a file of certificates (PEM)") from error
    if kafka.tls_certificate_file:
        _load_certificate(kafka, context)
    return context


def _load_certificate(kafka: Kafka, context: ssl.SSLContext) -> None:
    """The client's certificate and its key, of which OpenSSL would ask a terminal for the pass phrase."""
    import ssl

    asked: list[str] = []

    def pass_phrase() -> str:
        asked.append("")
        return key_password(kafka)

    try:
        context.load_cert_chain(kafka.tls_certificate_file, kafka.tls_key_file or None, pass_phrase)
    except (ssl.SSLError, ValueError) as error:
        key, path = "kafka.tls_key_file", kafka.tls_key_file or kafka.tls_certificate_file
        if asked and not kafka.tls_key_password_file:
            why, fix = "encrypted", "set kafka.tls_key_password_file, or name a key without a pass phrase"
        elif asked:
            key, path = "kafka.tls_key_password_file", kafka.tls_key_password_file
            why, fix = f"not the pass phrase of {kafka.tls_key_file}", "write the key's pass phrase into it"
        else:
            why, fix = str(error), "name a certificate and its key (PEM); of several certificates in the file the key's own is first"
        raise _unusable(key, path, why, fix) from error


def faust_security(settings: Settings, context: ssl.SSLContext | None) -> tuple[list[str], Any]:
    """The brokers' URLs and the credentials for a faust app (None for plain text); ``context`` is that of TLS."""
    kafka = settings.kafka
    brokers = [f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",") if server.strip()]
    if kafka.security_protocol == "PLAINTEXT":
        return brokers, None
    import faust

    if not kafka.security_protocol.startswith("SASL"):
        return brokers, faust.SSLCredentials(context)
    if kafka.sasl_mechanism == OAUTHBEARER:
        from virtflow.runtime.kafka.oauth import token_provider

        return brokers, faust.OAuthCredentials(oauth_cb=token_provider(kafka), ssl_context=context)
    credentials = faust.SASLCredentials(
        mechanism=kafka.sasl_mechanism or "PLAIN", username=kafka.sasl_username, password=password(kafka), ssl_context=context
    )
    return brokers, credentials


def _unusable(key: str, path: str, why: str, fix: str) -> SettingError:
    return SettingError(origin="settings", key=key, value=path, why=why, fix=fix)
