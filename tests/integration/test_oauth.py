"""OAUTHBEARER: every part gets its tokens, renews them while it runs, and says what is wrong where there is none. Kafka's own validator judges."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.broker import free_ports
from tests.support.certificates import Authority
from tests.support.command import one_line_error, virtflow
from tests.support.exporter_process import ExporterProcess
from tests.support.history import Writer, stored_keys, wait_for_samples, writing
from tests.support.processors import Bus, Processors, eventually
from tests.support.simulated_producer import SimulatedProducer
from tests.support.started import Started
from tests.support.token_server import TokenBroker, replace

PARTS: Final = ("producer", "processors", "exporter", "history")
SECONDS: Final = 90.0
LIFE: Final = 8
"""Of a token, in seconds: each part has several of them in the test's time."""
VMS: Final = 3


class RenewedFile(Started):
    """A token in a file, renewed in time by somebody else than who uses it."""

    def __init__(self, broker: TokenBroker, client: str, file: Path) -> None:
        """The file is there from ``start`` on."""
        self._broker = broker
        self._client = client
        self._file = file
        self._ended = threading.Event()

    def start(self) -> None:
        """Writes the first token, and then others."""
        self._write()
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Writes no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LIFE / 4):
            self._write()

    def _write(self) -> None:
        replace(self._file, self._broker.tokens.token(self._client))


def bare(env: dict[str, str]) -> dict[str, str]:
    return {key.removeprefix("VIRTFLOW_"): value for key, value in env.items()}


def test_every_part_renews_its_tokens_while_it_runs(tmp_path: Path) -> None:
    """The broker ends each session with its token. Producer and history have a token's file, the others an endpoint whose secrets are replaced."""
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(TokenBroker(tmp_path / "broker", PARTS, LIFE))
        bus = Bus(broker, partitions=2)
        bus.create_topics()
        files = {part: tmp_path / f"{part}.token" for part in ("producer", "history")}
        for part, file in files.items():
            stack.enter_context(RenewedFile(broker, part, file))
        env = {part: broker.with_file(part, files[part]) if part in files else broker.as_client(part, tmp_path) for part in PARTS}
        history, address = tmp_path / "history", broker.secured
        producer = stack.enter_context(SimulatedProducer({**bus.environment(), **env["producer"]}, tmp_path, vms=VMS))
        settings = {key.lower(): value for key, value in bare(env["processors"]).items()}
        processors = stack.enter_context(Processors(bus, tmp_path / "processors", **settings))
        exporter = stack.enter_context(ExporterProcess(tmp_path, address, bus.prefix, bare(env["exporter"])))
        writer = Writer(address, history, tmp_path, {**env["history"], "VIRTFLOW_TOPICS_PREFIX": bus.prefix})
        stack.enter_context(writing(writer))
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_vms") == VMS, SECONDS, "all VMs")
        wait_for_samples(history, VMS, SECONDS, writer)
        old = dict(broker.tokens.secrets)
        for part in ("processors", "exporter"):
            broker.tokens.secrets[part] = f"new-{old[part]}"
            replace(tmp_path / f"{part}.secret", broker.tokens.secrets[part])
        first = {part: len(broker.tokens.granted[part]) for part in PARTS}
        ends = time.monotonic() + 2 * LIFE
        eventually("renewals", lambda: all(len(broker.tokens.granted[part]) > first[part] + 1 for part in PARTS), SECONDS)
        eventually("two lives of a token", lambda: time.monotonic() > ends, SECONDS)
        wait_for_samples(history, stored_keys(history).total() + 2 * VMS, SECONDS, writer)
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_vms") == VMS, SECONDS, "all VMs still")
        logs = "".join(log.read_text() for log in (producer.log, processors.log, exporter.log, writer.log))
        assert (producer.stop(), processors.terminate(20.0), exporter.stop()) == (0, 0, 0)
    tokens = [token for granted in broker.tokens.granted.values() for token in granted]
    assert not [secret for secret in (*old.values(), *broker.tokens.secrets.values(), *tokens) if secret in logs]
    assert "Traceback" not in logs


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenBroker]:
    """A broker with all topics; tokens of one client are for somebody else."""
    with TokenBroker(tmp_path_factory.mktemp("tokens"), ("exporter", "foreign")) as broker:
        broker.tokens.audiences["foreign"] = "somebody else"
        made = virtflow("topics", "create", "--bootstrap-servers", broker.address)
        assert made.returncode == 0, made.stderr
        yield broker


def findings(env: dict[str, str]) -> list[dict[str, Any]]:
    """Those about settings, broker and topics that are not good."""
    listen = {"VIRTFLOW_EXPORTER_LISTEN": f"127.0.0.1:{free_ports(1)[0]}"}
    done = virtflow("check", "--for", "exporter", "--json", env=env | listen)
    assert not done.stderr
    return [one for one in json.loads(done.stdout)["findings"] if not one["ok"]]


def test_a_client_that_is_let_in(broker: TokenBroker, tmp_path: Path) -> None:
    """By an endpoint and by a file; what is shown of the settings has no secret."""
    assert findings(broker.as_client("exporter", tmp_path)) == []
    replace(tmp_path / "token", broker.tokens.token("exporter"))
    assert findings(broker.with_file("exporter", tmp_path / "token")) == []
    shown = virtflow("config", "show", "--for", "exporter", env=broker.as_client("exporter", tmp_path)).stdout
    assert str(tmp_path / "exporter.secret") in shown
    assert broker.tokens.secrets["exporter"] not in shown


WRONG: dict[str, tuple[str, dict[str, str], str, list[str]]] = {
    "wrong secret": ("nobody", {}, "refuses the client nobody: HTTP 401: invalid_client", ["oauth_client_id", "nobody.secret"]),
    "scope": ("exporter", {"oauth_scope": "all"}, "refuses the scope 'all': HTTP 400: invalid_scope", ["kafka.oauth_scope"]),
    "no endpoint": ("exporter", {"oauth_token_url": "https://localhost:1/token"}, "does not answer", ["kafka.oauth_token_url"]),
    "no URL": ("exporter", {"oauth_token_url": "localhost/token"}, "is no http or https URL", ["write it as https://"]),
    "authority": ("exporter", {"oauth_ca_file": ""}, "its certificate is not accepted", ["kafka.oauth_ca_file"]),
    "audience": (
        "foreign",
        {},
        "does not accept the token of foreign from https://id.example for somebody else",
        ["kafka.oauth_scope"],
    ),
    "mechanism": ("exporter", {"oauth_token_url": "", "oauth_client_id": ""}, "needs kafka.oauth_token_url", ["set kafka.oauth"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_check_names_what_is_wrong_with_the_token(broker: TokenBroker, tmp_path: Path, name: str) -> None:
    client, changed, why, fixes = WRONG[name]
    found = findings(broker.as_client(client, tmp_path, **changed))[0]
    assert why in found["detail"]
    assert all(word in found["fix"] for word in fixes), found
    assert "secret-of" not in json.dumps(found)


def test_topics_list_says_the_same(broker: TokenBroker, tmp_path: Path) -> None:
    line = one_line_error(virtflow("topics", "list", env=broker.as_client("nobody", tmp_path)), 1)
    assert "token endpoint https://localhost" in line
    assert "refuses the client nobody" in line


def test_a_token_file_that_is_of_no_use(broker: TokenBroker, tmp_path: Path) -> None:
    """Signed by nobody that the broker knows, expired, and away."""
    file = tmp_path / "token"
    replace(file, broker.tokens.token("exporter").rpartition(".")[0] + ".c2lnbmVk")
    (found,) = findings(broker.with_file("exporter", file))
    assert "does not accept the token of exporter" in found["detail"]
    replace(file, broker.tokens.token("exporter", life=-60))
    (found,) = findings(broker.with_file("exporter", file))
    assert "the token has expired" in found["detail"]
    assert "renew it in time" in found["fix"]
    file.unlink()
    found = findings(broker.with_file("exporter", file))[0]
    assert "No such file" in found["detail"]
    assert "kafka.oauth_token_file" in found["detail"]


def test_another_authority_for_the_endpoint(broker: TokenBroker, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    (found,) = findings(broker.as_client("exporter", tmp_path, oauth_ca_file=str(other.file)))
    assert "its certificate is not accepted" in found["detail"]
    assert str(other.file) in found["fix"]
