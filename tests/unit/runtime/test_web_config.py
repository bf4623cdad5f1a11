"""The web configuration file: the exporter-toolkit's format, and what is wrong with a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtflow.runtime.access.web_config import Rate, duration_seconds, load, openssl_suite, read

HASH = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"

FULL = f"""
tls_server_config:
  cert_file: server.pem
  key_file: /etc/keys/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: clients.pem
  client_allowed_sans: [prometheus.example]
  min_version: TLS13
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [X25519]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=63072000
    X-XSS-Protection: ""
basic_auth_users:
  prometheus: {HASH}
rate_limit:
  interval: 1m30s
  burst: 5
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "web.yml"
    file.write_text(text)
    return file


def test_every_key_is_read(tmp_path: Path) -> None:
    """Files are relative to the configuration's folder, blank headers are left out."""
    config = load(written(tmp_path, FULL))
    assert config.tls is not None
    assert config.files == (tmp_path / "server.pem", Path("/etc/keys/server.key"), tmp_path / "clients.pem")
    assert config.tls.client_allowed_sans == ["prometheus.example"]
    assert config.headers == {"X-Frame-Options": "deny", "Strict-Transport-Security": "max-age=63072000"}
    assert config.users == {"prometheus": HASH.encode()}
    assert config.rate == Rate(90.0, 5)


@pytest.mark.parametrize("text", ["", "# nothing\n", "tls_server_config:\nbasic_auth_users:\n", "tls_server_config: {min_version: TLS13}"])
def test_nothing_is_plain_http_for_everyone(tmp_path: Path, text: str) -> None:
    config = load(written(tmp_path, text))
    assert (config.tls, config.users, config.rate, config.headers) == (None, {}, None, {})


TLS = "cert_file: a, key_file: b"

BAD = {
    "unknown section": ("basic_auth: {}", "basic_auth", "no such key", "exporter-toolkit"),
    "unknown key": ("tls_server_config: {cert_fiel: x}", "tls_server_config.cert_fiel", "no such key", "exporter-toolkit"),
    "wrong type": ("rate_limit: {burst: many}", "rate_limit.burst", "Expected `int`", "exporter-toolkit"),
    "a list": ("[1]", "(whole file)", "Expected `object`", "exporter-toolkit"),
    "no YAML": ("tls_server_config: [", "(whole file)", "no YAML", "fix that line"),
    "a key twice": ("basic_auth_users: {a: x, a: y}", "(whole file)", "'a' is there twice (line 1)", "fix that line"),
    "key without certificate": ("tls_server_config: {key_file: b}", "tls_server_config.cert_file", "TLS needs cert", "PEM file"),
    "certificate without key": ("tls_server_config: {cert_file: b}", "tls_server_config.key_file", "TLS needs key", "PEM file"),
    "certificate twice": (f"tls_server_config: {{{TLS}, cert: x}}", "tls_server_config.cert_file", "cert is set, too", "keep one"),
    "no verification": (
        f"tls_server_config: {{{TLS}, client_auth_type: RequireAnyClientCert}}",
        "tls_server_config.client_auth_type",
        "without verifying",
        "RequireAndVerifyClientCert",
    ),
    "unknown policy": (f"tls_server_config: {{{TLS}, client_auth_type: Yes!}}", "tls_server_config.client_auth_type", "no such", "one of"),
    "policy without CA": (
        f"tls_server_config: {{{TLS}, client_auth_type: RequireAndVerifyClientCert}}",
        "tls_server_config.client_auth_type",
        "needs client_ca_file",
        "set client_ca_file",
    ),
    "CA without policy": (f"tls_server_config: {{{TLS}, client_ca_file: c}}", "tls_server_config.client_auth_type", "no effect", "set"),
    "names without policy": (
        f"tls_server_config: {{{TLS}, client_allowed_sans: [a]}}",
        "tls_server_config.client_allowed_sans",
        "needs every client",
        "RequireAndVerifyClientCert",
    ),
    "old version": (f"tls_server_config: {{{TLS}, min_version: TLS10}}", "tls_server_config.min_version", "not safe", "TLS12"),
    "no version": (f"tls_server_config: {{{TLS}, max_version: '1.3'}}", "tls_server_config.max_version", "no such version", "TLS12"),
    "no range": (
        f"tls_server_config: {{{TLS}, min_version: TLS13, max_version: TLS12}}",
        "tls_server_config.max_version",
        "is below min_version",
        "TLS13",
    ),
    "unsafe suite": (
        f"tls_server_config: {{{TLS}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}}",
        "tls_server_config.cipher_suites",
        "not safe",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ),
    "no curve": (f"tls_server_config: {{{TLS}, curve_preferences: [P-1]}}", "tls_server_config.curve_preferences", "no such", "CurveP256"),
    "two curves": (
        f"tls_server_config: {{{TLS}, curve_preferences: [X25519, CurveP256]}}",
        "tls_server_config.curve_preferences",
        "can't be set",
        "name one",
    ),
    "foreign header": (
        "http_server_config: {headers: {X-Powered-By: us}}",
        "http_server_config.headers.X-Powered-By",
        "can't be set",
        "X-",
    ),
    "header's value": (
        "http_server_config: {headers: {X-Frame-Options: maybe}}",
        "http_server_config.headers.X-Frame-Options",
        "no such value",
        "deny, sameorigin",
    ),
    "plain password": ("basic_auth_users: {prometheus: s3cret}", "basic_auth_users.prometheus", "no bcrypt hash", "htpasswd"),
    "colon in a name": (f"basic_auth_users: {{'a:b': '{HASH}'}}", "basic_auth_users.a:b", "no such user name", "colon"),
    "no duration": ("rate_limit: {interval: soon, burst: 1}", "rate_limit.interval", "no duration", "100ms"),
    "no date": ("rate_limit: {interval: 2026-13-45}", "(whole file)", "not of the kind", "fix that line"),
    "no number": ("rate_limit: {burst: !!int many}", "(whole file)", "not of the kind", "fix that line"),
    "no truth": ("http_server_config: {http2: !!bool maybe}", "(whole file)", "not of the kind", "fix that line"),
    "no moment": ("rate_limit: {interval: !!timestamp soon}", "(whole file)", "not of the kind", "fix that line"),
    "half of a character": ('<<: {tls_server_config: "\\ud800"}', "(whole file)", "half of a character", "fix that line"),
    "a number without end": (f"rate_limit: {{burst: {'9' * 5000}}}", "(whole file)", "not of the kind", "fix that line"),
    "key in place of its file": (
        "tls_server_config: {cert_file: a, key_file: '-----BEGIN PRIVATE KEY-----'}",
        "tls_server_config.key_file",
        "not its name",
        "write it as key",
    ),
    "no burst": ("rate_limit: {interval: 1s}", "rate_limit.burst", "refuses every request", "1 or more"),
}


SECRET = "hunter2"  # noqa: S105, what must not be shown
SAID = {
    "an alias": f"basic_auth_users: {{prometheus: *{SECRET}}}",
    "a tag": f"basic_auth_users: {{prometheus: !{SECRET}}}",
    "a quote": f"basic_auth_users: {{prometheus: *{SECRET}'x}}",
    "no name": f"basic_auth_users: {{prometheus: [{SECRET}]}}",
    "another name": f"tls_server_config: {{private_key: {SECRET}}}",
    "a name in capitals": f"tls_server_config: {{Key: {SECRET}}}",
    "another section": f"password: {SECRET}",
    "no section": f"basic_auth_users: {SECRET}",
    "a key in place of its file": f"tls_server_config: {{cert_file: a, key_file: '-----BEGIN PRIVATE KEY----- {SECRET}'}}",
    "a key in place of a word": f"tls_server_config: {{prefer_server_cipher_suites: '-----BEGIN PRIVATE KEY----- {SECRET}'}}",
}


@pytest.mark.parametrize("name", SAID)
def test_an_error_does_not_repeat_what_may_be_a_secret(tmp_path: Path, name: str) -> None:
    """A parser's own words quote what it stumbled over."""
    _, (error, *_) = read(written(tmp_path, SAID[name]))
    assert SECRET not in f"{error} {error.value!r} {error.why} {error.fix}"


@pytest.mark.parametrize("name", BAD)
def test_an_error_names_file_key_reason_and_fix(tmp_path: Path, name: str) -> None:
    text, key, why, fix = BAD[name]
    file = written(tmp_path, text)
    _, (error,) = read(file)
    assert error.origin == f"file {file}"
    assert error.key == key
    assert why in error.why
    assert fix in error.fix
    assert "s3cret" not in str(error)


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    _, errors = read(written(tmp_path, "basic_auth_users: {a: x, b: y}\nrate_limit: {interval: soon}\ntls_server_config: {key_file: k}\n"))
    assert [error.key for error in errors] == [
        "tls_server_config.cert_file",
        "basic_auth_users.a",
        "basic_auth_users.b",
        "rate_limit.interval",
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    config, (error,) = read(tmp_path / "nowhere.yml")
    assert config is None
    assert (error.key, error.why) == ("web.config_file", "No such file or directory")


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), (0, 0.0), ("1.5s", 1.5), ("1m30s", 90.0), ("250ms", 0.25), ("5", None), ("s", None), ("1d", None)]
)
def test_durations_as_go_writes_them(text: str | int, seconds: float | None) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("TLS_AES_128_GCM_SHA256", ""),
    ],
)
def test_names_of_suites(suite: str, name: str) -> None:
    assert openssl_suite(suite) == name
