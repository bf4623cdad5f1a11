"""The metrics APIs over TLS: the front proxy is answered, nobody else is; certificates are read again."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector
from yarl import URL

from tests.support.awaiting import until
from tests.support.kubernetes.certificates import Authority, Certificate
from tests.support.kubernetes.double import Double, served
from tests.unit.adapter.test_answers import World
from virtflow.adapter.guard import ApiGuard
from virtflow.adapter.kubernetes.access import Access
from virtflow.adapter.kubernetes.front_proxy import FrontProxy
from virtflow.adapter.requests import CUSTOM
from virtflow.adapter.tls import Certificates
from virtflow.adapter.web import Api
from virtflow.exporter.clocks import Clocks
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import Adapter
from virtflow.runtime.web.connections import Limits
from virtflow.runtime.web.server import Web
from virtflow.schemas.errors import EnvironmentProblemError

PODS: Final = f"/apis/{CUSTOM}/v1beta2/namespaces/shop/pods/*/vm_cpu_cores"
JANE: Final = {"X-Remote-User": "jane"}


class Certified:
    """The certificates of a test: the adapter's, the front proxy's, and those of others."""

    def __init__(self, folder: Path) -> None:
        """Makes them."""
        self.folder = folder
        self.adapters, self.proxies = Authority(folder, "adapter-ca"), Authority(folder, "front-proxy-ca")
        self.own = self.adapters.signed("adapter", hosts=("IP:127.0.0.1",))
        self.proxy = self.proxies.signed("front-proxy-client")
        self.other_name = self.proxies.signed("somebody")
        self.other_authority = self.adapters.signed("front-proxy-client", file="other-authority")
        self.settings = Adapter(tls_certificate_file=str(self.own.certificate), tls_key_file=str(self.own.key))

    @property
    def authority(self) -> str:
        return self.proxies.own.certificate.read_text()

    def shown(self, client: Certificate | None) -> ssl.SSLContext:
        """A client's TLS, with a certificate where it has one."""
        context = ssl.create_default_context(cafile=str(self.adapters.own.certificate))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        return context


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return Certified(tmp_path_factory.mktemp("certificates"))


class Served:
    """The API on a free port, over a world of three VMs and a cluster that may be told what to answer."""

    def __init__(self, certified: Certified, certificates: Certificates, api: Api, web: Web, found: tuple[Double, OwnMetrics]) -> None:
        """Serves already."""
        self.certified, self.certificates, self.api, self.web = certified, certificates, api, web
        self.double, self.metrics = found
        self.missing = ""
        self.closed = False
        """Whether the last answer closed its connection."""

    async def get(self, path: str, client: Certificate | None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and body."""
        url = URL(f"{self.web.url}{path}", encoded=True)
        connector = TCPConnector(ssl=self.certified.shown(client))
        async with ClientSession(connector=connector) as session, session.get(url, headers=headers) as answer:
            text = await answer.text()
            assert answer.headers["Server"] == "virtflow"
            self.closed = answer.headers.get("Connection") == "close"
            return answer.status, json.loads(text) if text.startswith("{") else text

    async def values(self, headers: dict[str, str] | None = None, path: str = PODS) -> tuple[int, Any]:
        """What the front proxy gets."""
        return await self.get(path, self.certified.proxy, JANE if headers is None else headers)


def serve(
    certified: Certified,
    script: Callable[[Served], Coroutine[Any, Any, None]],
    *,
    connections: int = 16,
    seconds: float = 10.0,
    settings: Adapter | None = None,
) -> None:
    """Runs a script beside the server, whose certificate is that of ``settings`` where they are given."""

    async def body() -> None:
        double, world, metrics = Double(), World(), OwnMetrics("adapter")
        async with served(double) as client:
            certificates = Certificates(settings or certified.settings)
            clocks = Clocks(lambda: world.now, lambda: 0.0)
            beside: list[Served] = []
            api = Api(world.answers, Access(client, lambda: 0.0), (CUSTOM,), metrics, clocks, lambda: beside[0].missing)
            api.proxy = FrontProxy(certified.authority, ("front-proxy-client",))
            assert certificates.renewed(api.proxy.authority)
            web = Web("127.0.0.1:0", api.routes(), metrics, Limits(connections, seconds), ApiGuard(certificates))
            await web.start()
            beside.append(Served(certified, certificates, api, web, (double, metrics)))
            try:
                await script(beside[0])
            finally:
                await web.stop()

    asyncio.run(body())


def test_the_front_proxys_users_are_answered(certified: Certified) -> None:
    async def script(server: Served) -> None:
        status, found = await server.values()
        assert status == 200
        assert {item["value"] for item in found["items"]} == {"100m", "200m", "300m"}
        (review,) = server.double.reviews
        assert review["spec"]["resourceAttributes"]["subresource"] == "vm_cpu_cores"

    serve(certified, script)


def test_a_percent_encoded_path_is_the_same(certified: Certified) -> None:
    """The API server writes ``*`` as %2A."""

    async def script(server: Served) -> None:
        status, found = await server.values(path=PODS.replace("*", "%2A") + "?labelSelector=number%3D2")
        assert (status, len(found["items"])) == (200, 1)

    serve(certified, script)


def test_nobody_else_is_answered(certified: Certified) -> None:
    """No certificate, another name, no user; discovery alike. Another authority's certificate is not even shaken hands with."""

    async def script(server: Served) -> None:
        for path in (PODS, f"/apis/{CUSTOM}/v1beta2", "/openapi/v2", "/nonsense"):
            for client, headers in ((None, JANE), (certified.other_name, JANE), (certified.proxy, {})):
                status, found = await server.get(path, client, headers)
                assert (status, found["reason"]) == (401, "Unauthorized")
                assert "items" not in found
            with pytest.raises((ClientError, ssl.SSLError, ConnectionError)):
                await server.get(path, certified.other_authority, JANE)
        assert server.double.reviews == []

    serve(certified, script)


def test_nobody_is_trusted_before_the_authority_is_known(certified: Certified) -> None:
    async def script(server: Served) -> None:
        server.api.proxy = None
        status, found = await server.values()
        assert (status, found["reason"]) == (401, "Unauthorized")
        assert server.closed

    serve(certified, script)


def test_a_user_without_the_right_gets_nothing(certified: Certified) -> None:
    async def script(server: Served) -> None:
        server.double.allowed = False
        status, found = await server.values()
        assert (status, found["reason"]) == (403, "Forbidden")
        assert "jane" in found["message"]

    serve(certified, script)


def test_discovery_is_there_whatever_is_away(certified: Certified) -> None:
    """Neither values nor the cluster's answer to a review are needed for it."""

    async def script(server: Served) -> None:
        server.missing = "no answer from the brokers"
        server.api._access._client._url = "http://127.0.0.1:1"
        for path in (f"/apis/{CUSTOM}", f"/apis/{CUSTOM}/v1beta1", f"/apis/{CUSTOM}/v1beta2", "/openapi/v2", "/openapi/v3"):
            assert (await server.values(path=path))[0] == 200
        status, found = await server.values()
        assert (status, found["reason"]) == (503, "ServiceUnavailable")

    serve(certified, script)


def test_values_that_are_not_known_yet_are_no_empty_list(certified: Certified) -> None:
    async def script(server: Served) -> None:
        server.missing = "reading back"
        status, found = await server.values()
        assert status == 503
        assert "reading back" in found["message"]

    serve(certified, script)


@pytest.mark.parametrize("path", ["/", "/apis", "/apis/external.metrics.k8s.io/v1beta1", f"/apis/{CUSTOM}/v1", "/metrics", PODS + "/more"])
def test_there_is_nothing_elsewhere(certified: Certified, path: str) -> None:
    async def script(server: Served) -> None:
        status, found = await server.values(path=path)
        assert (status, found["reason"]) == (404, "NotFound")

    serve(certified, script)


def test_certificates_are_read_again(certified: Certified, tmp_path: Path) -> None:
    """Another certificate and another authority make another context; half a file does not, and what was there before stays."""
    own = _copied(certified.own, tmp_path)
    certificates = Certificates(_naming(own))
    first = certificates.context
    assert certificates.renewed(certified.authority)
    assert not certificates.renewed(certified.authority)
    assert certificates.context is not first
    second = certificates.context
    own.key.write_text("half a")
    with pytest.raises(ssl.SSLError):
        certificates.renewed(certified.authority)
    assert certificates.context is second


def test_new_connections_get_the_renewed_certificate(certified: Certified, tmp_path: Path) -> None:
    own = _copied(certified.own, tmp_path)

    async def script(server: Served) -> None:
        before = await _shown(server.web.address)
        assert before == ssl.PEM_cert_to_DER_cert(own.certificate.read_text())
        _copied(certified.adapters.signed("adapter", hosts=("IP:127.0.0.1",), file="renewed"), tmp_path)
        assert server.certificates.renewed(certified.authority)
        assert (await server.values())[0] == 200
        shown = await _shown(server.web.address)
        assert before != shown == ssl.PEM_cert_to_DER_cert(own.certificate.read_text())

    serve(certified, script, settings=_naming(own))


def _naming(own: Certificate) -> Adapter:
    return Adapter(tls_certificate_file=str(own.certificate), tls_key_file=str(own.key))


def _copied(source: Certificate, folder: Path) -> Certificate:
    """The same certificate in other files, which a test may change."""
    own = Certificate(folder / "tls.crt", folder / "tls.key")
    own.certificate.write_bytes(source.certificate.read_bytes())
    own.key.write_bytes(source.key.read_bytes())
    return own


async def _shown(address: str) -> bytes:
    """The certificate that the server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bytes(certificate)


def test_an_authority_that_is_replaced_is_no_longer_trusted(certified: Certified) -> None:
    async def script(server: Served) -> None:
        assert (await server.values())[0] == 200
        assert server.certificates.renewed(certified.adapters.own.certificate.read_text())
        with pytest.raises((ClientError, ssl.SSLError, ConnectionError)):
            await server.values()
        assert (await server.get(PODS, certified.other_authority, JANE))[0] == 200

    serve(certified, script)


def test_an_idle_connection_ends_when_another_authority_is_trusted(certified: Certified) -> None:
    """Otherwise who was let in by the authority before would be trusted for as long as the connection is kept."""

    async def script(server: Served) -> None:
        def connections() -> float | None:
            return server.metrics.value("virtflow_web_connections")

        connector = TCPConnector(ssl=certified.shown(certified.proxy), keepalive_timeout=60.0)
        async with ClientSession(connector=connector) as session:
            async with session.get(f"{server.web.url}/apis/{CUSTOM}/v1beta2", headers=JANE) as answer:
                assert answer.status == 200
                await answer.read()
            assert connections() == 1
            assert server.certificates.renewed(certified.adapters.own.certificate.read_text())
            await until(lambda: connections() == 0, "the connection is closed")

    serve(certified, script)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblemError, match=r"certificate .*tls\.crt"):
        Certificates(Adapter(tls_certificate_file=str(tmp_path / "tls.crt"), tls_key_file=str(tmp_path / "tls.key")))


def test_handshakes_that_go_nowhere_keep_nobody_out(certified: Certified) -> None:
    """As many as there are connections: the newcomer takes the place of one."""

    async def script(server: Served) -> None:
        host, _, port = server.web.address.rpartition(":")
        stalled = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
        try:
            assert (await server.values())[0] == 200
        finally:
            for _, writer in stalled:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    serve(certified, script, connections=4)


def test_a_server_that_ends_asks_its_clients_to_leave(certified: Certified) -> None:
    async def script(server: Served) -> None:
        assert (await server.values())[0] == 200
        assert not server.closed
        server.api.draining = True
        assert (await server.values())[0] == 200
        assert server.closed

    serve(certified, script)
