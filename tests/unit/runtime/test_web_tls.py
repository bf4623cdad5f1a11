"""The HTTP server's TLS: its certificates, its clients' certificates, and handshakes that take their time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector

from tests.support.awaiting import until
from tests.support.certificates import Authority, Pair
from tests.support.web_server import USERS, configured, replace, run, serving, tls
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.settings import Web as WebSettings
from virtflow.runtime.web.connections import Limits
from virtflow.runtime.web.server import split_address
from virtflow.schemas.errors import SettingError


def test_tls(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """Clients that trust the authority get in by TLS; plain HTTP on the same port gets nothing."""

    async def scenario() -> None:
        async with serving(configured(tmp_path, tls(pair)), authority.trusting()) as served:
            assert served.server.url.startswith("https://")
            assert await served.status() == 200
            with pytest.raises(ClientError):
                await served.session.get(served.server.url.replace("https", "http") + "/healthz")
            assert served.metrics.value("virtflow_web_tls_failures_total") >= 1

    run(scenario)


def test_certificate_and_key_in_the_configuration_itself(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    indented = {name: file.read_text().replace("\n", "\n    ") for name, file in (("cert", pair.certificate), ("key", pair.key))}
    inline = "tls_server_config:\n" + "".join(f"  {name}: |\n    {text}\n" for name, text in indented.items())

    async def scenario() -> None:
        async with serving(configured(tmp_path, inline), authority.trusting()) as served:
            assert await served.status() == 200

    run(scenario)


def test_versions_and_suites(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """A client that speaks only what the configuration excludes gets no handshake."""
    more = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  curve_preferences: [CurveP384]\n"

    async def handshake(address: str, context: ssl.SSLContext) -> tuple[str, str] | None:
        host, port = split_address(address)
        try:
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
        except (ssl.SSLError, ConnectionError):
            return None
        del reader
        found = writer.get_extra_info("ssl_object")
        told = found.version(), found.cipher()[0]
        writer.close()
        return told

    async def scenario() -> None:
        async with serving(configured(tmp_path, tls(pair, more))) as served:
            assert await handshake(served.server.address, authority.trusting()) == ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
            newer, other = authority.trusting(), authority.trusting()
            newer.minimum_version = ssl.TLSVersion.TLSv1_3
            other.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
            assert await handshake(served.server.address, newer) is None
            assert await handshake(served.server.address, other) is None

    run(scenario)


def test_client_certificates(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """Without one, or with one of another authority, nobody gets in; its names have the rights that are given to them."""
    mine = authority.issue("prometheus", "prometheus.example", common_name="scraper")
    foreign = Authority(tmp_path / "foreign").issue("prometheus", "prometheus.example")
    more = f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {authority.file}\n"

    async def statuses(settings: WebSettings, client: Pair | None) -> list[int] | None:
        async with serving(settings, authority.trusting(client)) as served:
            try:
                return [await served.status(path) for path in ("/metrics", "/api/v1/query")]
            except (ClientError, OSError):
                return None

    async def scenario() -> None:
        settings = configured(tmp_path, tls(pair, more))
        assert await statuses(settings, None) is None
        assert await statuses(settings, foreign) is None
        assert await statuses(settings, mine) == [200, 200]
        for name in ("scraper", "prometheus.example"):
            assert await statuses(configured(tmp_path, tls(pair, more), rights={name: "metrics"}), mine) == [200, 403]
        assert await statuses(configured(tmp_path, tls(pair, more), rights={"other": "metrics"}), mine) == [403, 403]
        assert await statuses(configured(tmp_path, tls(pair, more) + USERS), mine) == [401, 401], "a password as well, as in the toolkit"

    run(scenario)


def test_names_that_a_certificate_must_have(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    mine = authority.issue("allowed", "prometheus.example")
    other = authority.issue("refused", "grafana.example")
    more = (
        f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {authority.file}\n  client_allowed_sans: [prometheus.example]\n"
    )

    async def scenario() -> None:
        settings = configured(tmp_path, tls(pair, more))
        async with serving(settings, authority.trusting(mine)) as served:
            assert await served.status() == 200
        async with serving(settings, authority.trusting(other)) as served:
            with pytest.raises((ClientError, OSError)):
                await served.status()
            assert served.metrics.value("virtflow_web_tls_failures_total") >= 1
            assert served.metrics.value("virtflow_web_connections") == 0

    run(scenario)


def test_a_certificate_that_may_be_given(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """Where rights are set, those without a certificate have none."""
    more = f"  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: {authority.file}\n"
    settings = configured(tmp_path, tls(pair, more), rights={"scraper": "metrics"})

    async def scenario() -> None:
        async with serving(settings, authority.trusting(authority.issue("given", common_name="scraper"))) as served:
            assert await served.status() == 200
        async with serving(settings, authority.trusting()) as served:
            assert await served.status() == 401

    run(scenario)


def test_a_new_certificate_is_shown_to_new_connections(tmp_path: Path) -> None:
    """Also by an authority that is new; connections that are open go on, and nobody is cut off."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")

    async def scenario() -> None:
        pair = old.server()
        settings = configured(tmp_path, tls(pair))
        async with serving(settings, old.trusting()) as served:
            assert await served.status() == 200
            new.server()
            assert await served.status() == 200, "on the connection that is open"
            async with (
                ClientSession(connector=TCPConnector(ssl=new.trusting())) as another,
                another.get(served.server.url + "/healthz") as answer,
            ):
                assert answer.status == 200
            assert served.metrics.value("virtflow_web_config_current") == 1

    run(scenario)


def test_a_client_without_trust_is_let_go(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """When the clients' authority changes, idle connections end; the client's next one has no trust any more."""
    other = Authority(tmp_path / "other")
    trusted = tmp_path / "clients.pem"
    trusted.write_text(authority.file.read_text())
    more = f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {trusted}\n"

    async def scenario() -> None:
        settings = configured(tmp_path, tls(pair, more))
        mine = authority.trusting(authority.issue("leaving", "leaving.example"))
        async with serving(settings, mine, Limits(request_timeout_seconds=0.2)) as served:
            assert await served.status() == 200
            replace(trusted, other.file.read_text())
            await until(lambda: not served.metrics.value("virtflow_web_connections"), "the connection is closed")
            with pytest.raises((ClientError, OSError)):
                await served.status()

    run(scenario)


@pytest.mark.parametrize(
    "case",
    [
        ("missing", "No such file", "can read"),
        ("foreign", "is not the key of the certificate", "made for"),
        ("locked", "has a passphrase", "openssl pkey"),
        ("garbage", "can't be used", "as PEM"),
    ],
)
def test_keys_that_cannot_be_used(tmp_path: Path, authority: Authority, pair: Pair, case: tuple[str, str, str]) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key

    key, why, fix = case
    own = load_pem_private_key(pair.key.read_bytes(), None)
    contents = {
        "foreign": authority.issue("foreign", "foreign.example").key.read_bytes(),
        "locked": own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
        "garbage": b"no key\n",
    }
    file = tmp_path / key
    if key in contents:
        file.write_bytes(contents[key])
    with pytest.raises(SettingError) as caught:
        Guard(configured(tmp_path, tls(Pair(pair.certificate, file))))
    assert caught.value.origin == f"file {tmp_path / 'web.yml'}"
    assert why in caught.value.why
    assert fix in caught.value.fix


def test_certificates_in_another_order(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """The authority's before the server's: it is said that the order is wrong, and not that the key is."""
    own, above = pair.certificate.read_text(), authority.file.read_text()
    file = tmp_path / "chain.pem"
    file.write_text(above + own)
    with pytest.raises(SettingError, match="first certificate in cert_file") as caught:
        Guard(configured(tmp_path, tls(Pair(file, pair.key))))
    assert "the server's certificate first" in caught.value.fix
    file.write_text(own + above + pair.key.read_text())
    assert Guard(configured(tmp_path, tls(Pair(file, file)))).context is not None


def test_idle_connections_never_keep_a_client_out(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """More connections without a handshake than there are places: each newcomer still gets in, and the oldest of them go."""

    async def scenario() -> None:
        limits = Limits(connections=4)
        async with serving(configured(tmp_path, tls(pair)), authority.trusting(), limits, keep=False) as served:
            idle = []
            for _ in range(3):
                for _ in range(8):
                    one = socket.create_connection(split_address(served.server.address))
                    one.setblocking(False)  # noqa: FBT003, the socket's own way
                    idle.append(one)
                assert await served.status() == 200
                assert served.metrics.value("virtflow_web_connections") <= 4
            for one in idle:
                one.close()
            await until(lambda: not served.metrics.value("virtflow_web_connections"), "the connection is closed")

    run(scenario)


def test_a_handshake_has_its_time(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """A connection that says nothing is closed after the time that a request may take."""

    async def scenario() -> None:
        async with serving(configured(tmp_path, tls(pair)), authority.trusting(), Limits(request_timeout_seconds=0.2)) as served:
            reader, writer = await asyncio.open_connection(*split_address(served.server.address))
            assert await reader.read() == b""
            writer.close()
            assert served.metrics.value("virtflow_web_tls_failures_total") >= 1

    run(scenario)


def test_a_request_right_behind_the_handshake(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """What a client sends with the last message of its handshake is not lost."""

    async def scenario() -> None:
        async with serving(configured(tmp_path, tls(pair))) as served:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
            reader, writer = await asyncio.open_connection(*split_address(served.server.address))
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65_536))
            client.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            writer.write(outgoing.read())  # the end of the handshake and the request in one
            told = b""
            while b"\r\n\r\n" not in told:
                incoming.write(await reader.read(65_536))
                try:
                    told += client.read(65_536)
                except ssl.SSLWantReadError:
                    continue
            assert told.startswith(b"HTTP/1.1 200")
            writer.close()

    run(scenario)


def test_expired_certificates_are_dated(tmp_path: Path) -> None:
    from virtflow.runtime.certificates import first_certificate

    ends = datetime.now(UTC) - timedelta(days=3)
    old = Authority(tmp_path).issue("old", "old.example", begins=ends - timedelta(days=30), ends=ends)
    found = first_certificate(old.certificate.read_text())
    assert found.names == ("old.example",)
    assert found.problem(datetime.now(UTC).timestamp()) == f"expired on {ends:%Y-%m-%d}"
    assert found.problem((ends - timedelta(days=1)).timestamp()) == ""
    assert found.problem((ends - timedelta(days=60)).timestamp()).startswith("not valid before")
    with pytest.raises(ValueError, match="no PEM certificate"):
        first_certificate("nothing")
