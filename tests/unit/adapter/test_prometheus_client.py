"""Queries to a Prometheus: what it answers, and each way of not answering in words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from virtflow.adapter.prometheus.client import PrometheusClient, PrometheusError, Series
from virtflow.runtime.settings import Adapter
from virtflow.schemas.errors import EnvironmentProblemError

VECTOR = '{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {"uuid": "u"}, "value": [1.5, "NaN"]}]}}'


def asked(body: str, status: int = 200, token: str = "", elsewhere: str = "") -> tuple[list[Series], dict[str, str]]:
    """What a query finds, and what the server was sent."""
    seen: dict[str, str] = {}

    async def handle(request: web.Request) -> web.Response:
        seen.update({"path": request.path, "authorization": request.headers.get("Authorization", "")})
        seen.update({name: str(value) for name, value in (await request.post()).items()})
        return web.Response(text=body, status=status, headers={"Location": elsewhere} if elsewhere else {})

    async def ask() -> list[Series]:
        app = web.Application()
        app.router.add_post("/{path:.*}", handle)
        async with TestServer(app) as server:
            settings = Adapter(prometheus_url=f"http://127.0.0.1:{server.port}/select/", prometheus_token_file=token)
            async with PrometheusClient(settings) as client:
                return await client.query("vm_info", at=12.25)

    return asyncio.run(ask()), seen


def test_a_query_and_its_answer(tmp_path: Path) -> None:
    """Below the path of the URL, with the token of the file."""
    (tmp_path / "token").write_text("secret\n")
    found, seen = asked(VECTOR, token=str(tmp_path / "token"))
    assert found == [Series({"uuid": "u"}, value=(1.5, "NaN"))]
    assert seen == {"path": "/select/api/v1/query", "authorization": "Bearer secret", "query": "vm_info", "time": "12.250"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ('{"status": "error", "errorType": "bad_data", "error": "parse error"}', 400, "400: parse error"),
        ("<html>", 502, "502, and not as Prometheus does"),
        ('{"status": "success", "data": {"result": [{"metric": 1}]}}', 200, "not as Prometheus does"),
        ("{}", 200, "Prometheus answers 200"),
    ],
)
def test_other_answers_are_refused(body: str, status: int, words: str) -> None:
    with pytest.raises(PrometheusError, match=words):
        asked(body, status)


def test_no_redirect_is_followed(tmp_path: Path) -> None:
    """It would carry the token to another server."""
    (tmp_path / "token").write_text("secret\n")
    with pytest.raises(PrometheusError, match="answers 307"):
        asked("{}", 307, str(tmp_path / "token"), "http://127.0.0.1:1/elsewhere")


def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtflow.adapter.prometheus.client.ANSWER_BYTES", 1 << 20)
    assert asked(VECTOR.ljust(1 << 20))[0][0].metric == {"uuid": "u"}
    with pytest.raises(PrometheusError, match="answers with more than 1 MiB"):
        asked(VECTOR.ljust((1 << 20) + 1))


def test_a_server_that_is_away_and_files_that_are_missing(tmp_path: Path) -> None:
    async def ask(settings: Adapter) -> None:
        async with PrometheusClient(settings) as client:
            await client.query("vm_info")

    with pytest.raises(PrometheusError, match="does not answer"):
        asyncio.run(ask(Adapter(prometheus_url="http://127.0.0.1:1")))
    with pytest.raises(PrometheusError, match=r"adapter\.prometheus_token_file .*/none: No such file"):
        asyncio.run(ask(Adapter(prometheus_url="http://127.0.0.1:1", prometheus_token_file=str(tmp_path / "none"))))
    with pytest.raises(EnvironmentProblemError, match="prometheus_ca_file"):
        PrometheusClient(Adapter(prometheus_url="https://127.0.0.1:1", prometheus_ca_file=str(tmp_path / "none")))
