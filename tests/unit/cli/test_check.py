"""Which parts ``virtflow check`` looks at, and with whose settings: what is outside of this process answers as the tests say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from virtflow.cli.checks import probes
from virtflow.cli.checks.check import findings
from virtflow.cli.checks.findings import Finding, good
from virtflow.cli.checks.settings_check import FILES
from virtflow.runtime.configuration import rows
from virtflow.runtime.settings import Settings

PRODUCER = {"confluent_kafka", "libvirt"}
"""What ``pip install virtflow[producer]`` brings, of what is looked for."""
EXPORTER = {"numpy", "aiohttp", "bcrypt", "confluent_kafka", "fastavro", "isal", "prometheus_client", "yaml"}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that are installed; broker, libvirt and ports are fine."""
    installed: set[str] = set()
    monkeypatch.setattr(probes, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(probes, "libvirt", lambda _: iter(()))
    monkeypatch.setattr(probes, "port", lambda listen, key: iter([good("port", listen, key)]))
    monkeypatch.setattr(probes, "broker_and_topics", asked)
    return installed


def asked(settings: Settings, services: Sequence[str]) -> Iterator[Finding]:
    """The broker's answer: who asks it, as which user."""
    yield good("broker", settings.kafka.sasl_username, " ".join(sorted(services)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The settings of a host, all defaults but where the journal is."""
    (tmp_path / "virtflow.toml").write_text(f'[producer]\njournal_folder = "{tmp_path}/journal"\n')
    return tmp_path


def of(found: Sequence[Finding], thing: str) -> list[str]:
    return [one.value for one in found if one.thing == thing]


def test_after_the_installation_of_a_producer_nothing_else_is_asked_for(here: set[str], folder: Path) -> None:
    """A part that is not installed is named, and no fault."""
    here |= PRODUCER
    found = list(findings((), folder, {}))
    assert all(one.ok for one in found), found
    assert of(found, "packages") == ["virtflow[producer]"]
    assert of(found, "part") == ["processors", "exporter", "node"]
    assert [one.detail for one in found if one.thing == "broker"] == ["producer"]


def test_one_host_alone_needs_the_packages_of_its_installation(here: set[str], folder: Path) -> None:
    """``pip install virtflow[producer,exporter]``, then ``check --for node``: no other packages, no broker."""
    here |= PRODUCER | EXPORTER
    found = list(findings(("node",), folder, {}))
    assert all(one.ok for one in found), found
    assert of(found, "packages") == ["virtflow[producer]", "virtflow[exporter]"]
    assert of(found, "broker") == []


def test_what_is_named_is_asked_for(here: set[str], folder: Path) -> None:
    here |= PRODUCER
    found = list(findings(("exporter",), folder, {}))
    assert [one.value for one in found if not one.ok] == ["virtflow[exporter]"]


def test_where_nothing_is_complete_everything_is_asked_for(here: set[str], folder: Path) -> None:
    """The answer to an installation without extras is not that all is fine."""
    assert not here
    found = list(findings((), folder, {}))
    assert [one.value for one in found if not one.ok] == ["virtflow[producer]", "virtflow[processors]", "virtflow[exporter]"]


def test_each_part_is_looked_at_with_its_own_settings(here: set[str], folder: Path) -> None:
    """One user on the broker each; parts with the same settings are looked at together."""
    here |= PRODUCER | EXPORTER | {"faust"}
    (folder / "exporter.toml").write_text('[kafka]\nsecurity_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\nsasl_username = "e"\n')
    found = list(findings((), folder, {}))
    assert [(one.value, one.detail) for one in found if one.thing == "broker"] == [("", "node processors producer"), ("e", "exporter")]
    assert [one.detail for one in found if not one.ok] == ["needs kafka.sasl_password_file, which is empty"]
    assert of(found, "settings") == [str(folder / "virtflow.toml")]


def test_what_is_shared_is_reported_once(here: set[str], folder: Path) -> None:
    here |= PRODUCER | EXPORTER | {"faust"}
    (folder / "virtflow.toml").write_text("[kafka]\nserver = 1\n")
    (folder / "exporter.toml").write_text("[exporter]\nlisten = 1\n")
    found = list(findings((), folder, {}))
    assert [one.value.partition(" ")[0] for one in found] == ["kafka.server", "exporter.listen"]


def test_history_is_looked_at_where_its_settings_are(here: set[str], folder: Path) -> None:
    here |= PRODUCER
    (folder / "history.toml").write_text("[history]\nraw_days = 3\n")
    found = list(findings((), folder, {}))
    assert [one.value for one in found if not one.ok] == ["virtflow[history]"]


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ('history_url = "https://h:9180"\nhistory_username = "u"\nhistory_password_file = "{file}"', []),
        ('history_url = "http://127.0.0.1:9180"\nhistory_token_file = "{file}"', []),
        ('history_url = "http://h:9180"\nhistory_token_file = "{file}"', ["is asked without TLS: the secret can be read on the way"]),
        ('history_tenant_header = "X-Project"', ["has no effect without exporter.history_url"]),
        ('history_url = "http://h:9180"\nfleet_page = false', ["has no effect without exporter.fleet_page"]),
        ('history_url = "https://h:9180"\nhistory_username = "u"', ["is set, but exporter.history_password_file is not"]),
        ('history_url = "http://h"\nhistory_tls_ca_file = "{file}"', ["has no effect without https in exporter.history_url"]),
        ('history_url = "https://h"\nhistory_tls_ca_file = "/nosuch"', ["No such file or directory (exporter.history_tls_ca_file)"]),
    ],
)
@pytest.mark.parametrize("service", ["exporter", "node"])
def test_the_history_server_of_the_fleet_page(here: set[str], folder: Path, words: str, wrong: list[str], service: str) -> None:
    """Its files, and settings of it that mean nothing together; for whichever service shows the page."""
    here |= PRODUCER | EXPORTER
    (folder / "secret").write_text("secret\n")
    (folder / "secret").chmod(0o600)
    (folder / f"{service}.toml").write_text(f"[exporter]\n{words.format(file=folder / 'secret')}\n")
    assert [one.detail for one in findings((service,), folder, {}) if not one.ok or one.warning] == wrong


HISTORY = {
    "deltalake",
    "pyarrow",
    "duckdb",
    "numpy",
    "aiohttp",
    "bcrypt",
    "confluent_kafka",
    "fastavro",
    "isal",
    "prometheus_client",
    "yaml",
}


@pytest.mark.parametrize(
    ("service", "words", "wrong"),
    [
        ("exporter", 'shard = "3/2"', "is no shard"),
        ("exporter", 'targets = ["no address"]', "is no address"),
        ("exporter", 'shard = "1/2"\ntargets = ["a:1", "b:1", "c:1"]', "are 3 addresses for 2 shards"),
        ("node", 'shard = "3/2"', "is no shard"),
        ("history", 'tenant_tokens_file = "{file}"', "line 1 is not a token of its own and a project"),
        ("history", 'path = "s3://bucket/x"', "no key for s3://bucket/x"),
    ],
)
def test_what_a_service_would_refuse_is_found(here: set[str], folder: Path, service: str, words: str, wrong: str) -> None:
    """Settings that read well each, and that the service ends with: the rest is looked at nevertheless."""
    here |= PRODUCER | EXPORTER | HISTORY
    (folder / "tokens").write_text("garbage\n")
    (folder / "tokens").chmod(0o600)
    section = "exporter" if service == "node" else service
    path = "" if "path" in words or service != "history" else f'path = "{folder}/tables"\n'
    (folder / f"{service}.toml").write_text(f"[{section}]\n{path}{words.format(file=folder / 'tokens')}\n")
    found = list(findings((service,), folder, {}))
    assert [one.detail.removesuffix(" (settings)") for one in found if not one.ok] == [wrong]
    assert service == "node" or of(found, "broker")


def test_every_file_that_a_setting_names_is_looked_at() -> None:
    """But those that virtflow itself writes, and the web's, which a check of its own reads."""
    written = {"registry.cache_file", "exporter.keep_file"}
    named = {row.path for row in rows() if row.key.endswith("_file") and row.section != "web"}
    assert named - written == set(FILES)


def test_settings_that_say_nothing_are_all_defaults(here: set[str], folder: Path) -> None:
    here |= PRODUCER
    (folder / "producer.toml").touch()
    assert all(one.ok for one in findings(("producer",), folder, {}))


def test_a_misspelt_file_is_a_warning(here: set[str], folder: Path) -> None:
    """Its settings would have no effect, without a word."""
    here |= PRODUCER
    (folder / "producers.toml").touch()
    (folder / "zzz.toml").touch()
    found = [one for one in findings((), folder, {}) if one.warning]
    assert [(one.value, one.detail) for one in found] == [
        (str(folder / "producers.toml"), "no part reads it"),
        (str(folder / "zzz.toml"), "no part reads it"),
    ]
    assert found[0].fix == "did you mean producer.toml?"
    assert "history" in found[1].fix
    alone = findings((), folder / "virtflow.toml", {})
    assert not [one for one in alone if one.warning], "what lies beside one file is somebody else's"
