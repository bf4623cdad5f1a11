"""The server's side of TLS: a context from the web configuration, and whether a client's certificate has an allowed name."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from virtflow.runtime.access.web_config import CURVES, REQUIRING, VERIFYING, TlsServer, WebConfig, openssl_suite, problem
from virtflow.runtime.certificates import common_name, in_memory
from virtflow.runtime.secrets import HIDDEN
from virtflow.schemas.errors import SettingError

_SECTION: Final = "tls_server_config"
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}


def server_context(config: WebConfig) -> ssl.SSLContext | None:
    """The context of a configuration without errors, None where it serves plain HTTP.

    Raises ``SettingError`` where a certificate, a key or a CA can't be used.
    """
    tls = config.tls
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if suites := [name for name in map(openssl_suite, tls.cipher_suites) if name]:
        context.set_ciphers(":".join(suites))
    if tls.curve_preferences:
        context.set_ecdh_curve(CURVES[tls.curve_preferences[0]])
    _load_own(config, tls, context)
    if tls.client_auth_type in VERIFYING:
        _load_clients(config, tls, context)
    return context


def _load_own(config: WebConfig, tls: TlsServer, context: ssl.SSLContext) -> None:
    with _pem(config, tls.cert, tls.cert_file, "cert_file") as certificate, _pem(config, tls.key, tls.key_file, "key_file") as key:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise _not_loaded(config, tls, error, several=Path(certificate).read_text("utf-8").count(_BEGIN) > 1) from error


def _not_loaded(config: WebConfig, tls: TlsServer, error: Exception, *, several: bool) -> SettingError:
    reason = getattr(error, "reason", "") or ""
    if reason == "KEY_VALUES_MISMATCH":
        why, fix = "is not the key of the certificate", "name the key that the certificate was made for"
        if several:
            why, fix = (
                "is not the key of the first certificate in cert_file",
                "write the server's certificate first, then those that signed it",
            )
        return problem(config.path, f"{_SECTION}.key_file", tls.key_file or HIDDEN, why, fix)
    if isinstance(error, ValueError):
        why, fix = "the key has a passphrase", "store it without one (`openssl pkey -in KEY -out NEW`), readable by this user alone"
        return problem(config.path, f"{_SECTION}.key_file", tls.key_file or HIDDEN, why, fix)
    why = f"certificate and key can't be used: {(reason or str(error)).replace('_', ' ').lower()}"
    return problem(
        config.path, f"{_SECTION}.cert_file", tls.cert_file or "(inline)", why, "write both as PEM, the server's certificate first"
    )


def _no_password() -> str:
    raise ValueError


def _load_clients(config: WebConfig, tls: TlsServer, context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_REQUIRED if tls.client_auth_type == REQUIRING else ssl.CERT_OPTIONAL
    with _pem(config, tls.client_ca, tls.client_ca_file, "client_ca_file") as authorities:
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            why = f"no CA certificates: {(error.reason or str(error)).replace('_', ' ').lower()}"
            value = tls.client_ca_file or "(inline)"
            raise problem(config.path, f"{_SECTION}.client_ca_file", value, why, "write the CA's certificate as PEM") from error


@contextmanager
def _pem(config: WebConfig, inline: str, name: str, key: str) -> Iterator[str]:
    """The path of what stands in the configuration or in a file that it names."""
    text = inline or _text(config, config.file(name), f"{_SECTION}.{key}")
    with in_memory(text) as path:
        yield path


def _text(config: WebConfig, path: Path, key: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no PEM file"
        raise problem(config.path, key, str(path), why, "name a PEM file that this user can read") from error


def peer_names(fields: Any) -> frozenset[str]:  # noqa: ANN401, ``getpeercert``'s dictionary, None or empty without a certificate
    """The names in a client's verified certificate: its common name and all alternative names."""
    if not fields:
        return frozenset()
    return frozenset({common_name(fields), *(str(value) for _, value in fields.get("subjectAltName", ()))} - {""})


def allowed_peer(tls: TlsServer | None) -> Callable[[Any], bool]:
    """Tells from ``getpeercert``'s dictionary whether a client has one of ``client_allowed_sans``, where they are set."""
    if tls is None or tls.client_allowed_sans is None:
        return lambda _: True
    allowed = frozenset(tls.client_allowed_sans)
    return lambda fields: any(str(value) in allowed for _, value in (fields or {}).get("subjectAltName", ()))
