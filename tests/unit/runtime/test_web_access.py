"""Who may ask the HTTP server: passwords, tokens and rights, and files that change while it runs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from aiohttp import encode_basic_auth

from tests.support.awaiting import until
from tests.support.certificates import Authority, Pair
from tests.support.web_server import HASH, ME, OTHER, USERS, configured, replace, run, serving, tls
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Web as WebSettings
from virtflow.runtime.web.connections import Limits
from virtflow.runtime.web.server import Web, split_address
from virtflow.schemas.errors import SettingError


def test_without_a_configuration_reading_is_open_and_writing_is_not() -> None:
    async def scenario() -> None:
        async with serving(WebSettings()) as served:
            assert await served.status() == 200
            assert await served.status("/api/v1/read", "POST") == 200
            assert await served.status("/change", "POST") == 403

    run(scenario)


def test_passwords(tmp_path: Path) -> None:
    """Health is open; everything else needs a password, also a path that does not exist; the answer says how to ask."""

    async def scenario() -> None:
        async with serving(configured(tmp_path, USERS)) as served:
            for path in ("/healthz", "/readyz"):
                assert await served.status(path) == 200
            for wrong in (
                None,
                encode_basic_auth("prometheus", "wrong"),
                encode_basic_auth("nobody", "s3cret"),
                encode_basic_auth("prometheus", ""),
            ):
                for path in ("/metrics", "/api/v1/query", "/nothing"):
                    assert await served.status(path, auth=wrong) == 401
            async with served.session.get(served.server.url + "/metrics") as answer:
                assert answer.headers.getall("WWW-Authenticate") == ["Basic"]
            assert await served.status(auth=ME) == 200
            assert await served.status("/nothing", auth=ME) == 404
            assert await served.status("/change", "POST", auth=ME) == 403, "what changes something is given by name only"

    run(scenario)


def test_a_stranger_is_refused_before_the_body_is_read(tmp_path: Path) -> None:
    """The answer comes though not one byte of the body was sent: nobody without a password makes the server wait or hold anything."""

    async def scenario() -> None:
        async with serving(configured(tmp_path, USERS)) as served:
            reader, writer = await asyncio.open_connection(*split_address(served.server.address))
            writer.write(b"POST /api/v1/read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), Limits().request_timeout_seconds / 2)
            writer.close()
            assert answer.startswith(b"HTTP/1.1 401 ")

    run(scenario)


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic cHJvbWV0aGV1cw==", "Digest x", "Bearer", "Bearer s3cret", "basic  "])
def test_headers_that_name_nobody(tmp_path: Path, header: str) -> None:
    async def scenario() -> None:
        async with serving(configured(tmp_path, USERS)) as served:
            assert await served.status(auth=header) == 401
            assert served.comparisons == 0

    run(scenario)


def test_a_scrape_pays_for_its_password_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(configured(tmp_path, USERS)) as served:
            for _ in range(5):
                assert await served.status(auth=ME) == 200
            assert served.comparisons == 1

    run(scenario)


def test_tokens_and_rights(tmp_path: Path) -> None:
    """Each name has the rights that are given to it and no others."""
    tokens = tmp_path / "tokens"
    tokens.write_text("# who may what\n\nt0ken-m prober\nt0ken-w deployer\n")
    rights = {"prometheus": "metrics", "grafana": "metrics history", "deployer": "write"}
    settings = configured(tmp_path, USERS, tokens_file=str(tokens), rights=rights)

    async def scenario() -> None:
        async with serving(settings) as served:
            for who, metrics, history, write in (
                (ME, 200, 403, 403),
                (encode_basic_auth("grafana", "s3cret"), 200, 200, 403),
                ("Bearer t0ken-w", 403, 403, 200),
                ("Bearer t0ken-m", 403, 403, 403),
                ("Bearer unknown", 401, 401, 401),
            ):
                assert await served.status("/metrics", auth=who) == metrics
                assert await served.status("/api/v1/query", auth=who) == history
                assert await served.status("/api/v1/read", "POST", auth=who) == history
                assert await served.status("/change", "POST", auth=who) == write
            async with served.session.get(served.server.url + "/metrics") as answer:
                assert answer.headers.getall("WWW-Authenticate") == ["Basic", "Bearer"]

    run(scenario)


def test_headers_and_the_rate_limit(tmp_path: Path) -> None:
    """Past the burst requests get 429, without a comparison of a password; health is never limited."""
    more = "http_server_config: {headers: {X-Frame-Options: deny}}\nrate_limit: {interval: 1h, burst: 2}\n"

    async def scenario() -> None:
        async with serving(configured(tmp_path, USERS + more)) as served:
            async with served.session.get(served.server.url + "/healthz") as answer:
                assert answer.headers["X-Frame-Options"] == "deny"
            assert [await served.status(auth=ME) for _ in range(3)] == [200, 200, 429]
            assert await served.status(auth=encode_basic_auth("prometheus", "new guess")) == 429
            assert served.comparisons == 1
            assert await served.status("/healthz") == 200

    run(scenario)


def test_new_users_count_at_once(tmp_path: Path) -> None:
    """A user that is taken out is refused with the next request, on the same connection; a new password counts, the old one no more."""

    async def scenario() -> None:
        settings = configured(tmp_path, USERS)
        async with serving(settings) as served:
            assert await served.status(auth=ME) == 200
            replace(Path(settings.config_file), f"basic_auth_users:\n  prometheus: {OTHER}\n")
            assert await served.status(auth=ME) == 401
            assert await served.status(auth=encode_basic_auth("prometheus", "other")) == 200
            assert await served.status(auth=encode_basic_auth("grafana", "s3cret")) == 401

    run(scenario)


@pytest.mark.parametrize(
    "case",
    [
        ("tls_server_config: [", "no YAML"),
        ("", "no TLS any more"),
        ("basic_auth_users: {prometheus: plain}", "is no bcrypt hash"),
    ],
)
def test_a_bad_change_keeps_what_was(
    tmp_path: Path, authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture, case: tuple[str, str]
) -> None:
    """A file that is half written, or open to everyone, never opens a running server; the log says what is wrong, a metric that it is."""
    changed, why = case

    async def scenario() -> None:
        settings = configured(tmp_path, tls(pair) + USERS)
        async with serving(settings, authority.trusting()) as served:
            replace(Path(settings.config_file), changed)
            assert await served.status(auth=ME) == 200
            assert await served.status() == 401
            assert served.metrics.value("virtflow_web_config_current") == 0
            assert why in caplog.text
            replace(Path(settings.config_file), tls(pair) + USERS.replace(HASH, OTHER))
            assert await served.status(auth=ME) == 401
            assert served.metrics.value("virtflow_web_config_current") == 1

    with caplog.at_level(logging.ERROR, "virtflow.web"):
        run(scenario)


def test_a_file_that_comes_late_is_taken(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """A configuration that names a certificate before it is there counts as soon as it is."""
    late = Pair(tmp_path / "late.pem", tmp_path / "late-key.pem")

    async def scenario() -> None:
        settings = configured(tmp_path, USERS)
        async with serving(settings, authority.trusting(), Limits(request_timeout_seconds=0.2), keep=False) as served:
            replace(Path(settings.config_file), tls(late) + USERS)
            assert await served.status(auth=ME) == 200
            late.certificate.write_bytes(pair.certificate.read_bytes())
            late.key.write_bytes(pair.key.read_bytes())
            await until(lambda: served.guard.rules.context is not None, "the file is taken")
            assert await served.status(auth=ME) == 200
            assert served.server.url.startswith("https://")

    run(scenario)


@pytest.mark.parametrize(
    ("rights", "why"), [({"prometheus": "everything"}, "there is no right 'everything'"), ({"prometheus": " "}, "no right is given")]
)
def test_rights_that_do_not_exist(rights: dict[str, str], why: str) -> None:
    with pytest.raises(SettingError) as caught:
        Guard(WebSettings(rights=rights))
    assert (caught.value.key, caught.value.why) == ("web.rights.prometheus", why)


@pytest.mark.parametrize(("lines", "why"), [("", "no token in it"), ("token\n", "line 1"), ("a x\na y\n", "line 2")])
def test_files_of_tokens_that_cannot_be_used(tmp_path: Path, lines: str, why: str) -> None:
    (tmp_path / "tokens").write_text(lines)
    with pytest.raises(SettingError) as caught:
        Guard(WebSettings(tokens_file=str(tmp_path / "tokens")))
    assert why in caught.value.why


@pytest.mark.parametrize(
    "case",
    [
        ("127.0.0.1:0", "", False),
        ("0.0.0.0:0", "", True),
        ("0.0.0.0:0", USERS, True),
        ("0.0.0.0:0", "tls", True),
        ("0.0.0.0:0", "tls and users", False),
    ],
)
def test_an_address_that_is_open_to_others_is_warned_of(
    tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture, case: tuple[str, str, bool]
) -> None:
    listen, text, warned = case
    content = {"tls": tls(pair), "tls and users": tls(pair) + USERS}.get(text, text)

    async def scenario() -> None:
        server = Web(listen, {}, OwnMetrics("exporter"), guard=Guard(configured(tmp_path, content)))
        await server.start()
        await server.stop()

    with caplog.at_level(logging.WARNING, "virtflow.web"):
        run(scenario)
    assert ("reachable from other hosts" in caplog.text) is warned
