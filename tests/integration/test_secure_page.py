"""Settings and commands of docs/secure.md and docs/deploy.md as they stand, on real brokers: with passwords, with tokens, and without either."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.command import PROGRAM, environment, virtflow
from tests.support.doc_blocks import block
from tests.support.exporter_process import ExporterProcess
from tests.support.secure_broker import SecureBroker
from tests.support.token_server import TokenBroker
from virtflow.runtime.kafka.acls import Part, acls
from virtflow.runtime.settings import Settings

PRODUCER, EXPORTER = "virtflow-producer", "virtflow-exporter"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """A broker with all topics and two users of the page, who may do nothing yet."""
    with SecureBroker(tmp_path_factory.mktemp("secured"), [PRODUCER, EXPORTER]) as broker:
        made = virtflow("topics", "create", "--bootstrap-servers", broker.address)
        assert made.returncode == 0, made.stderr
        yield broker


BY_PASSWORD = ("toml password shared", "toml password producer")
BY_TOKEN = ("toml token shared", "toml token producer")


def settings_of(pages: tuple[str, str], folder: Path, broker: SecureBroker, **others: str) -> None:
    """The page's files of a producer in ``folder``: with a real broker, and certificates that are there."""
    for name, words in zip(("virtflow.toml", "producer.toml"), pages, strict=True):
        text = block(words)
        assert text.startswith(f"# /etc/virtflow/{name}\n")
        for old, new in {
            "kafka-1:9093,kafka-2:9093": broker.secured,
            "/etc/virtflow/kafka-ca.pem": str(broker.authority.file),
            **others,
        }.items():
            text = text.replace(old, new)
        (folder / name).write_text(text)


def secret(folder: Path, setting: str, text: str) -> dict[str, str]:
    """A secret as systemd gives it to a service: what a command is told of it."""
    store = folder / "credentials"
    store.mkdir(mode=0o700)
    (store / setting).write_text(f"{text}\n")
    (store / setting).chmod(0o600)
    return {"CREDENTIALS_DIRECTORY": str(store)}


def wrong(folder: Path, env: dict[str, str]) -> list[str]:
    """What ``virtflow check`` says against a producer's settings and its broker."""
    told = json.loads(virtflow("check", "--for", "producer", "--json", "--config", str(folder), env=env).stdout)["findings"]
    assert {"broker", "token endpoint"} & {one["thing"] for one in told}
    return [
        f"{one['thing']} {one['value']}: {one['detail']}" for one in told if not one["ok"] and one["thing"] not in {"libvirt", "folder"}
    ]


def typed(words: str, env: dict[str, str], replaced: dict[str, str]) -> list[str]:
    """What each line of a page's block of commands says; fails where one fails."""
    said = []
    for line in block(words).splitlines():
        command = line
        for old, new in replaced.items():
            command = command.replace(old, new)
        path = {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euc", command], env=environment(env | path), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stdout + done.stderr}"
        said.append(done.stdout)
    return said


def test_rights_are_shown_and_given(secured: SecureBroker, tmp_path: Path) -> None:
    """The first command shows them and changes nothing, the second gives them: the table's, to this user."""
    env = secured.as_user("admin", tmp_path)
    admin = tmp_path / "admin.toml"
    admin.write_text(
        "[kafka]\n" + "".join(f"{key.removeprefix('VIRTFLOW_KAFKA_').lower()} = {json.dumps(value)}\n" for key, value in env.items())
    )
    show, give = block("sh acls").splitlines()
    assert give.startswith(show)
    said = typed("sh acls", {}, {"/etc/virtflow/admin.toml": str(admin)})
    wanted = {(f"User:{EXPORTER}", acl.resource, acl.name, acl.operation) for acl in acls(Settings(), Part.EXPORTER)}
    assert {right for right in secured.rights() if right[0] == f"User:{EXPORTER}"} == wanted
    assert all(name in said[0] for _, _, name, _ in wanted)


def test_a_producer_with_a_password(secured: SecureBroker, tmp_path: Path) -> None:
    """The page's two files and a credential are all that it needs; with another password it is refused."""
    given = virtflow(
        "topics", "acls", "--for", "producer", "--principal", f"User:{PRODUCER}", "--apply", env=secured.as_user("admin", tmp_path)
    )
    assert given.returncode == 0, given.stderr
    settings_of(BY_PASSWORD, tmp_path, secured)
    env = secret(tmp_path, "kafka.sasl_password_file", secured.passwords[PRODUCER])
    assert wrong(tmp_path, env) == []
    (tmp_path / "credentials" / "kafka.sasl_password_file").write_text("another\n")
    (refused,) = wrong(tmp_path, env)
    assert "SASL" in refused or "password" in refused


def test_a_producer_with_tokens(tmp_path: Path) -> None:
    with TokenBroker(tmp_path / "broker", (PRODUCER,), 60) as broker:
        made = virtflow("topics", "create", "--bootstrap-servers", broker.address)
        assert made.returncode == 0, made.stderr
        ca = str(broker.authority.file)
        settings_of(BY_TOKEN, tmp_path, broker, **{"https://id.example/token": broker.tokens.url, "/etc/virtflow/id-ca.pem": ca})
        env = secret(tmp_path, "kafka.oauth_client_secret_file", broker.tokens.secrets[PRODUCER])
        assert wrong(tmp_path, env) == []
        (tmp_path / "credentials" / "kafka.oauth_client_secret_file").write_text("another\n")
        (refused,) = wrong(tmp_path, env)
        assert "token endpoint" in refused


def test_users_and_tokens_have_the_rights_of_the_page(broker: Broker, tmp_path: Path) -> None:
    """The token's name may read the metrics and not the history; another's may do both, and somebody without one nothing."""
    (tmp_path / "web.yml").write_text("{}\n")
    (tmp_path / "web.tokens").write_text("t0ken-one prometheus\nt0ken-two grafana\n")
    (tmp_path / "web.tokens").chmod(0o600)
    (tmp_path / "virtflow.toml").write_text(block("toml web-rights").replace("/etc/virtflow", str(tmp_path)))
    process = ExporterProcess(tmp_path, broker.address, "rights.", {"CONFIG": tmp_path / "virtflow.toml"})
    made = virtflow("topics", "create", "--bootstrap-servers", broker.address, "--topic-prefix", "rights.")
    assert made.returncode == 0, made.stderr
    found = {}
    with process as exporter:
        exporter.wait_until_ready()
        for token in ("", "t0ken-one", "t0ken-two"):
            exporter.headers = {"Authorization": f"Bearer {token}"} if token else {}
            found[token] = [exporter.status(path) for path in ("/healthz", "/metrics", "/api/v1/vms")]
    assert found == {"": [200, 401, 401], "t0ken-one": [200, 200, 403], "t0ken-two": [200, 200, 200]}


def test_topics_of_the_deploy_page(tmp_path: Path) -> None:
    """Shown, made, and listed; a broker alone holds no three copies."""
    with Broker(tmp_path / "own") as own:
        shown, made, listed = typed("sh topics", {}, {"kafka:9092": own.address, "--replication 3": "--replication 1"})
    names = re.findall(r"vm\.[\w-]+", made)
    assert len(names) == 7
    assert re.findall(r"vm\.[\w-]+", shown) == names
    assert set(names) <= set(re.findall(r"vm\.[\w-]+", listed))
    assert "would be made" in shown
    assert "12" in listed
