"""Which values of settings may be shown: what is known to be harmless, and nothing else.

``config show``, ``check``, errors and logs show settings through ``harmless`` and ``plain_url``. A name that is not in a list here belongs
to a client that is not ours: it may be a password by any name, so its value is never shown.
Sources: librdkafka's CONFIGURATION.md, and the configuration keys of the Rust crate object_store.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "[REDACTED]"
PEM: Final = "-----BEGIN"
"""How a key begins that was written where the name of its file belongs."""

CREDENTIALS: Final = frozenset(
    {
        "kafka.oauth_client_secret_file",
        "kafka.sasl_password_file",
        "kafka.tls_key_file",
        "kafka.tls_key_password_file",
        "registry.password_file",
        "history.s3_access_key_file",
        "history.s3_secret_key_file",
        "history.tenant_tokens_file",
        "exporter.history_password_file",
        "exporter.history_token_file",
    }
)
"""Settings that name the file of a secret which is read once, at the start: systemd can give it as a credential."""

_CLIENT: Final = """
    acks allow.auto.create.topics api.version.fallback.ms api.version.request api.version.request.timeout.ms auto.commit.interval.ms
    auto.offset.reset batch.num.messages batch.size broker.address.family broker.address.ttl broker.version.fallback builtin.features
    check.crcs client.dns.lookup client.id client.rack compression.codec compression.level compression.type connections.max.idle.ms
    debug delivery.report.only.error delivery.timeout.ms enable.auto.commit enable.auto.offset.store enable.gapless.guarantee
    enable.idempotence enable.metrics.push enable.partition.eof enable.random.seed enable.sasl.oauthbearer.unsecure.jwt
    enable.ssl.certificate.verification fetch.error.backoff.ms fetch.max.bytes fetch.message.max.bytes fetch.min.bytes
    fetch.queue.backoff.ms fetch.wait.max.ms group.id group.instance.id group.protocol group.protocol.type group.remote.assignor
    heartbeat.interval.ms internal.termination.signal isolation.level linger.ms log.connection.close log.queue log.thread.name log_level
    max.in.flight max.in.flight.requests.per.connection max.partition.fetch.bytes max.poll.interval.ms message.copy.max.bytes
    message.max.bytes message.send.max.retries message.timeout.ms metadata.broker.list metadata.max.age.ms
    metadata.recovery.rebootstrap.trigger.ms metadata.recovery.strategy offset.store.method partition.assignment.strategy partitioner
    queue.buffering.backpressure.threshold queue.buffering.max.kbytes queue.buffering.max.messages queue.buffering.max.ms
    queued.max.messages.kbytes queued.min.messages receive.message.max.bytes reconnect.backoff.max.ms reconnect.backoff.ms
    request.required.acks request.timeout.ms retries retry.backoff.max.ms retry.backoff.ms sasl.kerberos.keytab
    sasl.kerberos.min.time.before.relogin sasl.kerberos.principal sasl.kerberos.service.name sasl.mechanism sasl.mechanisms
    sasl.oauthbearer.method sasl.oauthbearer.scope sasl.username security.protocol session.timeout.ms socket.blocking.max.ms
    socket.connection.setup.timeout.ms socket.keepalive.enable socket.max.fails socket.nagle.disable socket.receive.buffer.bytes
    socket.send.buffer.bytes socket.timeout.ms ssl.ca.location ssl.certificate.location ssl.cipher.suites ssl.crl.location
    ssl.curves.list ssl.endpoint.identification.algorithm ssl.engine.id ssl.engine.location ssl.key.location ssl.keystore.location
    ssl.providers ssl.sigalgs.list statistics.interval.ms sticky.partitioning.linger.ms topic.blacklist
    topic.metadata.propagation.max.ms topic.metadata.refresh.fast.interval.ms topic.metadata.refresh.interval.ms
    topic.metadata.refresh.sparse transaction.timeout.ms transactional.id
"""
_STORAGE: Final = """
    allow_http allow_invalid_certificates aws_allow_http aws_bucket aws_bucket_name aws_checksum_algorithm aws_conditional_put
    aws_copy_if_not_exists aws_default_region aws_disable_tagging aws_endpoint aws_endpoint_url aws_imdsv1_fallback
    aws_metadata_endpoint aws_region aws_request_payer aws_s3_allow_unsafe_rename aws_s3_express aws_skip_signature
    aws_unsigned_payload aws_virtual_hosted_style_request azure_account_name azure_container_name azure_endpoint
    azure_storage_account_name azure_use_azure_cli azure_use_emulator bucket bucket_name conditional_put connect_timeout
    copy_if_not_exists default_region disable_tagging endpoint endpoint_url google_bucket google_bucket_name
    http1_only http2_only imdsv1_fallback metadata_endpoint pool_idle_timeout pool_max_idle_per_host proxy_url region request_payer
    retry_timeout s3_express skip_signature timeout unsigned_payload user_agent virtual_hosted_style_request
"""
HARMLESS: Final[Mapping[str, frozenset[str]]] = {
    "kafka.client": frozenset(_CLIENT.split()),
    "history.storage": frozenset(_STORAGE.split()),
}
"""Names whose values may be shown, in lower case, of settings that hold other programs' settings."""
OWN_MAPS: Final = frozenset({"history.serve_labels"})
"""Settings that hold a map of our own, which Prometheus shows anyway."""
_SECRET: Final = re.compile(
    r"passw|pass_?phrase|secret|token|credential|jaas|oauthbearer\.config|\.pem$|access_key|account_key|(?<!skip_)signature$|[_.]key$|sas$",
    re.IGNORECASE,
)
"""In a name: what marks a secret, so that a person can be told that it has a better place."""
_USER: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY: Final = re.compile(r"^(https?|s3a?)(://[^?#\s]*)[?#].*$", re.IGNORECASE | re.DOTALL)


def harmless(path: str, value: Any) -> Any:  # noqa: ANN401, any setting's value
    """The value of the setting ``section.key`` as it may be shown, whatever was given for it; of unknown settings nothing is."""
    names = HARMLESS.get(path)
    match value:
        case dict() if names is not None:
            return {
                key: plain_url(item) if str(key).lower() in names and isinstance(item, SCALARS) else HIDDEN for key, item in value.items()
            }
        case dict() if path in OWN_MAPS:
            return {key: item if isinstance(item, SCALARS) else HIDDEN for key, item in value.items()}
        case list() if names is None:
            return [plain_url(item) if isinstance(item, SCALARS) else HIDDEN for item in value]
        case str() | int() | float() | bool() if names is None and path not in OWN_MAPS:
            return plain_url(value)
    return HIDDEN


SCALARS: Final = (str, int, float, bool)


def plain_url(value: Any) -> Any:  # noqa: ANN401, any scalar
    """A text in which addresses have no user, no password and, of web addresses, no query; nothing of a PEM text; anything else as it is."""
    if not isinstance(value, str):
        return value
    if PEM in value:
        return HIDDEN
    without = ",".join(_QUERY.sub(rf"\1\2?{HIDDEN}", part) for part in value.split(","))
    return _USER.sub(f"{HIDDEN}@", without)


def secret_in(url: str) -> str:
    """Why a URL may hold a secret, so that it can't be shown as it is; "" where it holds none."""
    if plain_url(url) == url:
        return ""
    try:
        return "names a user" if "@" in urllib.parse.urlsplit(url).netloc else "has a query"
    except ValueError:
        return "is no URL"


def secret_names(values: Mapping[str, str]) -> list[str]:
    """The names in a map of other programs' settings that mark a secret."""
    return sorted(name for name in values if _SECRET.search(name) and not name.lower().endswith(".location"))


def scrubbed(path: str, values: Mapping[str, str], text: str) -> str:
    """A text of another program's about its settings, without those values that may not be shown."""
    for name, value in values.items():
        if value and harmless(path, {name: value})[name] == HIDDEN:
            text = text.replace(value, HIDDEN)
    return text
