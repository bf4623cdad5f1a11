"""``virtflow check`` on web configurations: what is wrong with a file, a certificate or an address, in one finding each."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import free_ports
from tests.support.certificates import Authority
from tests.support.command import one_line_error, virtflow

NOWHERE = "qemu+unix:///system?socket=/nowhere/sock"
HASH = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
CHEAP = "$2y$04$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"


def check(folder: Path, text: str, host: str = "127.0.0.1", **env: str) -> list[dict[str, Any]]:
    """The findings about the web configuration; warnings are among the good ones."""
    file = folder / "web.yml"
    file.write_text(text or "# nothing\n")
    file.chmod(0o600)
    env |= {"VIRTFLOW_EXPORTER_LISTEN": f"{host}:{free_ports(1)[0]}"}
    done = virtflow("check", "--for", "node", "--connect", NOWHERE, "--web-config", str(file), "--json", env=env)
    assert not done.stderr
    return [one for one in json.loads(done.stdout)["findings"] if one["thing"] not in {"settings", "packages", "libvirt", "port"}]


@pytest.mark.parametrize(
    ("text", "value", "detail", "fix"),
    [
        ("basic_auth_user: {}\n", "basic_auth_user = ", "there is no such key", "docs/secure.md"),
        ("basic_auth_users: {prometheus: s3cret}\n", "basic_auth_users.prometheus = '[REDACTED]'", "no bcrypt hash", "htpasswd"),
        ("rate_limit: {interval: soon, burst: 1}\n", "rate_limit.interval = 'soon'", "no duration", "100ms"),
        ("tls_server_config: {cert_file: a.pem}\n", "tls_server_config.key_file = ''", "TLS needs key", "PEM file"),
    ],
)
def test_an_error_names_file_key_value_reason_and_fix(tmp_path: Path, text: str, value: str, detail: str, fix: str) -> None:
    (found,) = (one for one in check(tmp_path, text) if not one["ok"] and one["thing"] == "setting")
    assert found["value"].startswith(value)
    assert detail in found["detail"]
    assert f"(file {tmp_path / 'web.yml'})" in found["detail"]
    assert fix in found["fix"]
    assert "s3cret" not in json.dumps(found)


def test_a_service_ends_with_the_same_words(tmp_path: Path) -> None:
    """A service that is started with a bad file ends at once, with one line and exit code 2."""
    file = tmp_path / "web.yml"
    file.write_text("rate_limit: {interval: soon, burst: 1}\n")
    env = {"VIRTFLOW_EXPORTER_LISTEN": "127.0.0.1:0", "VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    line = one_line_error(virtflow("exporter", "--web-config", str(file), env=env), 2)
    assert f"file {file}: rate_limit.interval = 'soon': is no duration" in line


def test_good_files_are_told_with_names_and_dates(tmp_path: Path) -> None:
    pair = Authority(tmp_path).server()
    text = (
        f"tls_server_config: {{cert_file: {pair.certificate.name}, key_file: {pair.key.name}}}\nbasic_auth_users: {{prometheus: {HASH}}}\n"
    )
    found = check(tmp_path, text, "0.0.0.0")  # noqa: S104, the case that must not warn
    assert all(one["ok"] and not one["warning"] for one in found), found
    (certificate,) = (one for one in found if one["thing"] == "certificate")
    assert certificate["detail"].startswith("certificate for localhost, 127.0.0.1, signed by ")


@pytest.mark.parametrize(("days", "ok", "detail"), [(-2, False, "expired on"), (5, True, "ends soon")])
def test_certificates_that_end(tmp_path: Path, days: int, ok: bool, detail: str) -> None:  # noqa: FBT001
    ends = datetime.now(UTC) + timedelta(days=days)
    pair = Authority(tmp_path).issue("old", "localhost", begins=ends - timedelta(days=30), ends=ends)
    found = check(tmp_path, f"tls_server_config: {{cert_file: {pair.certificate}, key_file: {pair.key}}}\n")
    (certificate,) = (one for one in found if one["thing"] == "certificate")
    assert (certificate["ok"], certificate["warning"]) == (ok, ok)
    assert detail in certificate["detail"]
    assert f"{ends:%Y-%m-%d}" in certificate["detail"]


def test_a_key_that_others_can_read_and_one_that_does_not_fit(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.server(), authority.issue("other", "other.example")
    pair.key.chmod(0o644)
    told = check(tmp_path, f"tls_server_config: {{cert_file: {pair.certificate}, key_file: {pair.key}}}\n")
    (open_key,) = (one for one in told if not one["ok"])
    assert "other users can use this secret" in open_key["detail"]
    told = check(tmp_path, f"tls_server_config: {{cert_file: {pair.certificate}, key_file: {other.key}}}\n")
    (foreign,) = (one for one in told if not one["ok"])
    assert "is not the key of the certificate" in foreign["detail"]


@pytest.mark.parametrize(
    ("text", "thing", "detail"),
    [
        ("", "address", "everyone there may read it"),
        (f"basic_auth_users: {{a: {HASH}}}\n", "address", "without TLS"),
        (f"basic_auth_users: {{a: {HASH}, b: {CHEAP}}}\n", "setting", "different costs"),
    ],
)
def test_warnings_do_not_fail(tmp_path: Path, text: str, thing: str, detail: str) -> None:
    warned = [one for one in check(tmp_path, text, "0.0.0.0") if one["warning"]]  # noqa: S104, what is warned of
    assert [one["ok"] for one in warned if one["thing"] == thing and detail in one["detail"]] == [True]
    assert all(one["fix"] for one in warned)


@pytest.mark.parametrize(
    ("text", "rights", "detail"),
    [
        (f"basic_auth_users: {{a: {HASH}}}\n", "b=metrics", "no such user and no such token"),
        ("# nothing\n", "b=metrics", "has no effect without"),
        ("# nothing\n", "b=all", "there is no right 'all'"),
    ],
)
def test_rights_of_nobody(tmp_path: Path, text: str, rights: str, detail: str) -> None:
    (found,) = (one for one in check(tmp_path, text, VIRTFLOW_WEB_RIGHTS=rights) if not one["ok"])
    assert detail in found["detail"]
    assert found["fix"]
