"""Tokens: when another one is fetched, what a client gets while there is none, and what is wrong in words that hold no secret."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.certificates import Authority
from tests.support.token_server import SCOPE, TokenServer
from tests.support.token_server import replace as write
from virtflow.cli.checks.settings_check import contradictions
from virtflow.runtime.kafka import oauth
from virtflow.runtime.kafka.broker_problem import Kind, Problem, broker_problem
from virtflow.runtime.kafka.clients import client_settings, faust_security
from virtflow.runtime.kafka.credentials import LOOK_SECONDS, Credentials
from virtflow.runtime.kafka.oauth import OPAQUE_SECONDS, SOON_SECONDS, FileToken, Tokens, parsed, token_provider
from virtflow.runtime.settings import Kafka, Settings
from virtflow.schemas.errors import EnvironmentProblemError, SettingError

LIFE = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    with TokenServer(Authority(tmp_path / "tls"), ["me"], LIFE) as server:
        yield server


@pytest.fixture
def by_endpoint(server: TokenServer, tmp_path: Path) -> Kafka:
    write(tmp_path / "secret", server.secrets["me"])
    return Kafka(
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        oauth_token_url=server.url,
        oauth_client_id="me",
        oauth_client_secret_file=str(tmp_path / "secret"),
        oauth_scope=SCOPE,
        oauth_ca_file=str(tmp_path / "tls" / "ca.pem"),
    )


@pytest.fixture
def by_file(tmp_path: Path) -> Kafka:
    return Kafka(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", oauth_token_file=str(tmp_path / "token"))


class Clock:
    """Unix seconds that the test moves; they begin with those of the server's tokens."""

    def __init__(self, server: TokenServer) -> None:
        """At the time of a first token."""
        self.now = (parsed(server.token("me")).expires or 0.0) - LIFE
        server.granted["me"].clear()

    def __call__(self) -> float:
        return self.now


def test_a_token_is_fetched_again_after_four_fifths_of_its_life(by_endpoint: Kafka, server: TokenServer) -> None:
    clock = Clock(server)
    tokens = Tokens(by_endpoint, clock)
    first = tokens.text()
    clock.now += LIFE * 0.7
    assert tokens.text() == first
    clock.now += LIFE * 0.15
    tokens.text()
    assert len(server.granted["me"]) == 2


def test_a_new_secret_counts_at_once(by_endpoint: Kafka, server: TokenServer, tmp_path: Path) -> None:
    tokens = Tokens(by_endpoint, Clock(server))
    tokens.text()
    server.secrets["me"] = "another"
    write(tmp_path / "secret", "another")
    tokens.text()
    assert (len(server.granted["me"]), server.refused) == (2, [])


def test_while_the_endpoint_refuses_the_last_token_is_used_for_its_life(by_endpoint: Kafka, server: TokenServer) -> None:
    clock = Clock(server)
    tokens = Tokens(by_endpoint, clock)
    first = tokens.text()
    server.secrets["me"] = "another"
    clock.now += LIFE * 0.9
    assert tokens.text() == first
    clock.now += LIFE * 0.2
    with pytest.raises(EnvironmentProblemError, match="refuses the client me"):
        tokens.text()


def test_a_token_in_a_file_is_read_at_each_use(by_file: Kafka, server: TokenServer, tmp_path: Path) -> None:
    """Librdkafka asks again before it expires, soon where it has expired, and now and then where it does not say when."""
    clock = Clock(server)
    write(tmp_path / "token", server.token("me"))
    given = FileToken(by_file, clock)
    assert given(None) == (server.granted["me"][0], clock.now + LIFE)
    clock.now += 2 * LIFE
    assert given(None)[1] == clock.now + SOON_SECONDS
    write(tmp_path / "token", "opaque")
    assert given(None) == ("opaque", clock.now + OPAQUE_SECONDS)
    (tmp_path / "token").unlink()
    assert given(None) == ("opaque", clock.now + SOON_SECONDS)
    with pytest.raises(SettingError, match=r"kafka\.oauth_token_file"):
        FileToken(by_file, clock)


def test_aiokafka_gets_the_newest_token(by_file: Kafka, server: TokenServer, tmp_path: Path) -> None:
    """From the file, and nothing but an error that it knows where there is none."""
    from aiokafka.errors import KafkaConnectionError

    provider = token_provider(by_file)
    for _ in range(2):
        write(tmp_path / "token", server.token("me"))
        assert asyncio.run(provider.token()) == server.granted["me"][-1]
    write(tmp_path / "token", server.token("me", life=-5))
    with pytest.raises(KafkaConnectionError, match="the token has expired"):
        asyncio.run(provider.token())


def test_what_the_clients_are_given(by_endpoint: Kafka, by_file: Kafka, server: TokenServer, tmp_path: Path) -> None:
    """Librdkafka fetches tokens from an endpoint by itself, and is handed a file's; faust's client is handed both."""
    config = client_settings(Settings(kafka=by_endpoint))
    assert config["sasl.oauthbearer.method"] == "oidc"
    assert config["sasl.oauthbearer.client.secret"] == server.secrets["me"]
    assert "sasl.username" not in config
    write(tmp_path / "token", "opaque")
    assert client_settings(Settings(kafka=by_file))["oauth_cb"](None)[0] == "opaque"
    _, credentials = faust_security(Settings(kafka=replace(by_file, security_protocol="SASL_PLAINTEXT")), None)
    assert asyncio.run(credentials.oauth_cb.token()) == "opaque"


def test_clients_are_built_again_for_a_new_secret_and_not_for_a_new_token(by_endpoint: Kafka, by_file: Kafka, tmp_path: Path) -> None:
    now = 0.0
    write(tmp_path / "token", "one")
    watched = [Credentials(kafka, lambda: now) for kafka in (by_endpoint, by_file)]
    write(tmp_path / "token", "two")
    write(tmp_path / "secret", "another")
    now += LOOK_SECONDS
    assert [one.renewed() for one in watched] == [True, False]


WRONG: dict[str, tuple[dict[str, str], str, str]] = {
    "client": ({"oauth_client_id": "you"}, "refuses the client you: HTTP 401: invalid_client", "kafka.oauth_client_secret_file"),
    "scope": ({"oauth_scope": "all"}, "refuses the scope 'all'", "kafka.oauth_scope"),
    "authority": ({"oauth_ca_file": ""}, "TLS: its certificate is not accepted", "kafka.oauth_ca_file"),
    "no authority": ({"oauth_ca_file": "/dev/null"}, "", "kafka.oauth_ca_file"),
    "name": ({"oauth_token_url": "https://no-such-host.invalid/"}, "does not answer", "kafka.oauth_token_url"),
    "scheme": ({"oauth_token_url": "ftp://localhost/"}, "does not answer: unknown url type", "kafka.oauth_token_url"),
    "no URL": ({"oauth_token_url": "localhost"}, "does not answer: unknown url type", "kafka.oauth_token_url"),
}


@pytest.mark.parametrize("name", WRONG)
def test_why_there_is_no_token(by_endpoint: Kafka, name: str) -> None:
    changed, why, fix = WRONG[name]
    with pytest.raises(EnvironmentProblemError) as raised:
        oauth.token(replace(by_endpoint, **changed), 0.0)
    assert why in raised.value.why
    assert fix in raised.value.fix
    assert "secret-of-me" not in str(raised.value)


ANSWERS: dict[str, tuple[int, dict[str, str], str]] = {
    "no token": (200, {}, "holds no access_token"),
    "opaque": (200, {"access_token": "opaque"}, "is no JWT with sub and exp"),
    "another page": (404, {}, "gives no token: HTTP 404"),
    "an echo": (401, {"error": "invalid_client", "error_description": "not secret-of-me"}, "invalid_client: not [REDACTED]"),
    "elsewhere": (302, {}, "gives no token: HTTP 302"),
    "busy": (503, {"error": "temporarily_unavailable"}, "gives no token: HTTP 503: temporarily_unavailable"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_endpoint_that_gives_none(by_endpoint: Kafka, server: TokenServer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, document, why = ANSWERS[name]
    monkeypatch.setattr(server, "answer", lambda *_: (status, document))
    with pytest.raises(EnvironmentProblemError) as raised:
        oauth.token(by_endpoint, 0.0)
    assert why in raised.value.why


def test_a_token_is_not_in_its_own_words(server: TokenServer) -> None:
    text = server.token("me")
    shown = parsed(text)
    assert text not in repr(shown)
    assert str(shown).startswith("of me from https://id.example for kafka until 20")
    assert str(parsed("opaque")) == "that does not say whose it is"
    assert [parsed(each).expires for each in ("", "a.b.c", "a.e30.c", "a.W10.c", "a.eyJleHAiOiJ4In0.c")] == [None] * 5


HEARD: dict[str, tuple[Problem | None, str]] = {
    "refused by the broker": (Problem(Kind.SASL, "kafka:9093", '{"status":"invalid_token"}'), "does not accept the token of me from"),
    "mechanism": (Problem(Kind.SASL, "kafka:9093", "Unsupported SASL mechanism"), "SASL is refused: Unsupported"),
    "silence": (None, "does not answer"),
    "away": (Problem(Kind.REFUSED, "kafka:9093", "Connect failed: Connection refused"), "does not answer: Connect failed"),
}


@pytest.mark.parametrize("name", HEARD)
def test_whose_fault_it_is(by_endpoint: Kafka, name: str) -> None:
    """With a token that can be had it is the broker's; without one that is the reason for its silence."""
    heard, why = HEARD[name]
    problems = [] if heard is None else [heard]
    assert why in broker_problem(by_endpoint, problems).why
    found = broker_problem(replace(by_endpoint, oauth_client_id="you"), problems)
    assert (found.thing == "token endpoint") == (name != "away")


def test_a_secret_that_is_away_is_the_reason(by_endpoint: Kafka, tmp_path: Path) -> None:
    (tmp_path / "secret").unlink()
    found = broker_problem(by_endpoint, [])
    assert (found.thing, found.value) == ("setting", "kafka.oauth_client_secret_file")


OAUTH = ("token_url", "client_id", "client_secret_file", "scope", "ca_file")
CHANGES: dict[str, tuple[dict[str, str], list[str]]] = {
    "nothing": ({}, []),
    "no id": ({"oauth_client_id": ""}, ["needs kafka.oauth_client_id, which is empty"]),
    "a user": ({"sasl_username": "me"}, ["kafka.sasl_username has no effect with it"]),
    "another mechanism": (
        {"sasl_mechanism": "PLAIN", "sasl_username": "me", "sasl_password_file": "p"},
        [f"kafka.oauth_{key} has no effect with it" for key in OAUTH],
    ),
    "without SASL": (
        {"security_protocol": "SSL"},
        ["kafka.sasl_mechanism has no effect with it", *(f"kafka.oauth_{key} has no effect with it" for key in OAUTH)],
    ),
    "a file as well": ({"oauth_token_file": "t"}, [f"kafka.oauth_{key} has no effect with it" for key in OAUTH]),
    "in clear": ({"oauth_token_url": "http://id.example/"}, ["the client's secret goes over the network in clear"]),
    "in clear on this host": ({"oauth_token_url": "http://127.0.0.1:1/"}, []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_settings_that_contradict(by_endpoint: Kafka, name: str) -> None:
    changed, expected = CHANGES[name]
    assert [one.detail for one in contradictions(Settings(kafka=replace(by_endpoint, **changed)))] == expected
