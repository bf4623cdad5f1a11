"""Who may ask the HTTP server: TLS, client certificates, passwords, tokens and rights, and files that change while it runs."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from aiohttp import ClientError, ClientSession, TCPConnector, encode_basic_auth, web

from tests.support.certificates import Authority, Pair
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Web as WebSettings
from virtflow.runtime.web import Handler, Web, own_routes, split_address, text
from virtflow.runtime.web_connections import Limits
from virtflow.schemas.errors import SettingError

HASH = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
OTHER = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
USERS = f"basic_auth_users:\n  prometheus: {HASH}\n  grafana: {HASH}\n"
ME = encode_basic_auth("prometheus", "s3cret")


async def _answer(request: web.Request) -> web.StreamResponse:
    return text(request.path)


def routes(metrics: OwnMetrics) -> dict[str, Handler]:
    return {
        **own_routes(metrics, lambda: ""),
        "/api/v1/query": _answer,
        "POST /api/v1/read": _answer,
        "POST /change": _answer,
    }


class Served:
    """A server with a web configuration, and one-line requests to it."""

    def __init__(self, server: Web, metrics: OwnMetrics, guard: Guard, session: ClientSession) -> None:
        """``session`` is a client's."""
        self.server, self.metrics, self.guard, self.session = server, metrics, guard, session

    async def status(self, path: str = "/metrics", method: str = "GET", auth: str | None = None) -> int:
        """The status of an answer; ``auth`` is the header Authorization."""
        headers = {} if auth is None else {"Authorization": auth}
        async with self.session.request(method, self.server.url + path, headers=headers) as answer:
            await answer.read()
            return answer.status

    @property
    def comparisons(self) -> float:
        return self.metrics.value("virtflow_web_password_comparisons_total")


@asynccontextmanager
async def serving(
    settings: WebSettings, context: ssl.SSLContext | None = None, limits: Limits | None = None, *, keep: bool = True
) -> AsyncIterator[Served]:
    metrics = OwnMetrics("exporter")
    guard = Guard(settings, metrics)
    server = Web("127.0.0.1:0", routes(metrics), metrics, limits, guard)
    await server.start()
    connector = TCPConnector(ssl=context if context is not None else True, force_close=not keep)
    async with ClientSession(connector=connector) as session:
        try:
            yield Served(server, metrics, guard, session)
        finally:
            await server.stop()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


async def until(happened: Callable[[], bool]) -> None:
    """Waits for what the server does by itself, which sends no event; the scenario's own time ends it."""
    while not happened():  # noqa: ASYNC110, as above
        await asyncio.sleep(0.01)


def configured(folder: Path, text: str, **more: Any) -> WebSettings:  # noqa: ANN401, settings of any type
    file = folder / "web.yml"
    replace(file, text)
    return WebSettings(config_file=str(file), **more)


def replace(file: Path, text: str) -> None:
    """As an editor does: a new file in the old one's place."""
    part = file.with_suffix(".new")
    part.write_text(text)
    part.replace(file)


def tls(pair: Pair, more: str = "") -> str:
    return f"tls_server_config:\n  cert_file: {pair.certificate}\n  key_file: {pair.key}\n{more}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.server()


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
            await until(lambda: not served.metrics.value("virtflow_web_connections"))
            with pytest.raises((ClientError, OSError)):
                await served.status()

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
            await until(lambda: served.guard.rules.context is not None)
            assert await served.status(auth=ME) == 200
            assert served.server.url.startswith("https://")

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
            await until(lambda: not served.metrics.value("virtflow_web_connections"))

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
