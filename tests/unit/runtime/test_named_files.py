"""Files of secrets: what is taken from them, what is refused, and that no byte of them is in what is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import in_process
from virtflow.adapter.kubernetes.client import KubernetesClient
from virtflow.adapter.prometheus.client import PrometheusClient
from virtflow.cli.checks import probes
from virtflow.cli.top.access import Access
from virtflow.history.storage.options import storage_options
from virtflow.runtime.kafka.clients import client_settings
from virtflow.runtime.kafka.credentials import LOOK_SECONDS, Credentials
from virtflow.runtime.named_files import secret_of, text_of
from virtflow.runtime.registry.client import RegistryClient
from virtflow.runtime.settings import Adapter, History, Kafka, Registry, Settings
from virtflow.schemas.errors import InputError, SettingError

SECRET = "hunter2"  # noqa: S105, what must not be shown

TAKEN = {
    "alone": SECRET.encode(),
    "a line": f"{SECRET}\n".encode(),
    "a line of another system": f"{SECRET}\r\n".encode(),
    "lines that are empty": f"{SECRET}\n\n".encode(),
    "a byte order mark": f"\ufeff{SECRET}\n".encode(),
}
REFUSED = {
    "nothing": (b"", "is empty"),
    "an empty line": (b"\r\n", "is empty"),
    "a mark alone": ("\ufeff".encode(), "is empty"),
    "two lines": (f"{SECRET}\n{SECRET}\n".encode(), "holds 2 lines"),
    "a line before it": (f"\n{SECRET}".encode(), "holds 2 lines"),
    "a zero byte at the end": (f"{SECRET}\0".encode(), "a control character"),
    "a zero byte": (f"{SECRET}\0{SECRET}".encode(), "a control character"),
    "an escape": (f"\x1b[2J{SECRET}".encode(), "a control character"),
    "UTF-16": (SECRET.encode("utf-16"), "no text (UTF-8) from byte 0 on"),
    "no text": (f"{SECRET}\xff".encode("latin-1"), f"no text (UTF-8) from byte {len(SECRET)} on"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


@pytest.mark.parametrize("name", TAKEN)
def test_a_secret_is_what_the_line_says(file: Path, name: str) -> None:
    file.write_bytes(TAKEN[name])
    assert secret_of(file, "kafka.sasl_password_file") == SECRET


def test_spaces_and_letters_of_any_language_belong_to_a_secret(file: Path) -> None:
    file.write_text(" пароль \u00a0\n")
    assert secret_of(file, "kafka.sasl_password_file") == " пароль \u00a0"


@dataclass(frozen=True)
class Reader:
    """Who reads secrets, and the kind of error that it ends in."""

    read: Callable[[str], object]
    error: type[InputError] = SettingError


def asked(client: KubernetesClient | PrometheusClient) -> object:
    """A request of a client."""

    async def ask() -> object:
        async with client:
            return await (client.get("/") if isinstance(client, KubernetesClient) else client.query("up"))

    return asyncio.run(ask())


def kafka(**settings: Any) -> Callable[[], object]:  # noqa: ANN401, settings of any type
    sasl: dict[str, Any] = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "u"}
    return lambda: client_settings(Settings(kafka=Kafka(**(sasl | settings))))


NOBODY = "http://127.0.0.1:1"
READERS: dict[str, Reader] = {
    "password": Reader(lambda path: kafka(sasl_password_file=path)()),
    "client's secret": Reader(lambda path: kafka(sasl_mechanism="OAUTHBEARER", oauth_token_url=NOBODY, oauth_client_secret_file=path)()),
    "token": Reader(lambda path: kafka(sasl_mechanism="OAUTHBEARER", oauth_token_file=path)()),
    "pass phrase": Reader(lambda path: kafka(tls_key_password_file=path)()),
    "registry": Reader(lambda path: RegistryClient(Registry(url=NOBODY, username="u", password_file=path))),
    "storage": Reader(lambda path: storage_options(History(path="s3://b/x", s3_access_key_file=path, s3_secret_key_file=path))),
    "top's token": Reader(lambda path: Access(token_file=path).opener(NOBODY), InputError),
    "top's password": Reader(lambda path: Access(user="u", password_file=path).opener(NOBODY), InputError),
    "Kubernetes": Reader(
        lambda path: asked(KubernetesClient(Adapter(kubernetes_url=NOBODY, kubernetes_ca_file="", kubernetes_token_file=path))), InputError
    ),
    "Prometheus": Reader(lambda path: asked(PrometheusClient(Adapter(prometheus_url=NOBODY, prometheus_token_file=path))), InputError),
}


@pytest.mark.parametrize("who", READERS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_secret_is_refused_without_telling_it(file: Path, who: str, name: str) -> None:
    """By whoever reads one: no client is built with half of a password."""
    content, why = REFUSED[name]
    file.write_bytes(content)
    with pytest.raises(READERS[who].error) as caught:
        READERS[who].read(str(file))
    assert why in str(caught.value)
    assert str(file) in str(caught.value)
    assert SECRET not in repr(caught.value) + str(caught.value)


def test_a_file_that_is_being_written_is_waited_for(file: Path) -> None:
    """An empty password would have the broker refuse a service that works."""
    now = 0.0
    file.write_text("old\n")
    settings = Kafka(security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="u", sasl_password_file=str(file))
    watched = Credentials(settings, lambda: now)
    for text, taken in (("", False), ("new\n", True)):
        file.write_text(text)
        now += LOOK_SECONDS
        assert watched.renewed() is taken


@pytest.mark.parametrize("path", ["/etc/\0", "/etc/\ud800"])
def test_what_is_no_path_is_said(path: str) -> None:
    with pytest.raises(SettingError, match="no path of a file"):
        text_of(path, "kafka.tls_ca_file")


KEY = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("words", [("config", "show"), ("config", "show", "--json"), ("check", "--for", "exporter"), ("topics", "list")])
def test_a_key_in_place_of_its_file_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """Whoever writes it there sees that a file can't be read, and not the key again."""
    monkeypatch.setattr(probes, "BROKER_SECONDS", 0.1)
    file = tmp_path / "virtflow.toml"
    file.write_text(f"[kafka]\nsecurity_protocol = 'SSL'\ntls_certificate_file = '''{KEY}'''\ntls_key_file = '''{KEY}'''\n")
    done = in_process(*words, "--config", str(file))
    assert "[REDACTED]" in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "defect" not in done.stderr, done.stderr
