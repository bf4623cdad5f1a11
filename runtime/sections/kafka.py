"""Settings of what lies between the parts: the brokers, the topics and the schema registry."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from virtflow.runtime.sections.rows import Seconds, row, server_url


class Kafka(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way to the broker, for every client."""

    bootstrap_servers: Annotated[str, row("Kafka brokers to start from, separated by commas.", "--bootstrap-servers")] = "localhost:9092"
    security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], row("How to talk to the brokers.")] = (
        "PLAINTEXT"
    )
    sasl_mechanism: Annotated[
        Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
        row("SASL mechanism. OAUTHBEARER needs oauth_token_url or oauth_token_file; the others need sasl_username and sasl_password_file."),
    ] = ""
    sasl_username: Annotated[str, row("SASL user.")] = ""
    sasl_password_file: Annotated[str, row("File that holds the SASL password and nothing else.")] = ""
    oauth_token_url: Annotated[
        str,
        server_url(
            "OAUTHBEARER: token endpoint that gives tokens for the client's id and secret (OAuth 2.0).",
            "https://id.example/token",
            query=True,
        ),
    ] = ""
    oauth_client_id: Annotated[str, row("OAUTHBEARER: id of the client at the token endpoint.")] = ""
    oauth_client_secret_file: Annotated[str, row("OAUTHBEARER: file that holds the client's secret and nothing else.")] = ""
    oauth_scope: Annotated[str, row("OAUTHBEARER: scope to ask the token endpoint for; none when empty.")] = ""
    oauth_ca_file: Annotated[str, row("OAUTHBEARER: CA certificates the token endpoint is checked against; the system's when empty.")] = ""
    oauth_token_file: Annotated[
        str, row("OAUTHBEARER: file of a token that another program renews, in the place of a token endpoint. It is read at each use.")
    ] = ""
    tls_ca_file: Annotated[str, row("CA certificates the brokers are checked against; the system's when empty.")] = ""
    tls_certificate_file: Annotated[str, row("Client certificate (PEM).")] = ""
    tls_key_file: Annotated[str, row("Key of the client certificate (PEM).")] = ""
    tls_key_password_file: Annotated[str, row("File that holds the key's pass phrase and nothing else, where the key is encrypted.")] = ""
    silence_seconds: Annotated[
        Seconds,
        row(
            "Silence of the brokers after which a service that reads topics reports at /readyz that it is not ready; 0: never.",
            ge=0,
            le=86400,
        ),
    ] = 10.0
    fetch_bytes: Annotated[int, row("Bytes of messages that a client which reads topics fetches in advance.", ge=1_048_576, le=2**31)] = (
        4_194_304
    )
    client: Annotated[dict[str, str], row("Further librdkafka settings, passed through to every client as they are.")] = field(
        default_factory=dict
    )


class Topics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The topics' names and sizes."""

    prefix: Annotated[
        str,
        Meta(description="Put before every topic's name.", extra={"switch": "--topic-prefix"}, pattern=r"^[a-zA-Z0-9._-]{0,100}$"),
    ] = ""
    partitions: Annotated[int, row("Partitions of the topics that `topics create` makes.", "--partitions", ge=1, le=10000)] = 6
    replication: Annotated[int, row("Replicas of the topics that `topics create` makes.", "--replication", ge=1, le=10)] = 1


class Registry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The schema registry, where there is one."""

    url: Annotated[
        str,
        server_url(
            "URL of a Confluent-compatible schema registry; without it messages carry the schema's fingerprint.", "http://registry:8081"
        ),
    ] = ""
    timeout_seconds: Annotated[Seconds, row("How long the registry may take to answer.", ge=0.1, le=60)] = 5.0
    subjects: Annotated[
        Literal["topic", "record"],
        row("Subject of a schema: TOPIC-value, which stock tools look for, or the record's full name (virtflow.VmMetrics)."),
    ] = "topic"
    cache_file: Annotated[
        str,
        row(
            "File that keeps the ids and schemas the registry has told, for starts without it; "
            "registry.json in the service's state directory when empty, where systemd gives it one."
        ),
    ] = ""
    username: Annotated[str, row("User of the registry (HTTP basic authentication); its password is in password_file.")] = ""
    password_file: Annotated[str, row("File that holds the registry's password and nothing else.")] = ""
    tls_ca_file: Annotated[str, row("CA certificates the registry is checked against; the system's when empty.")] = ""
