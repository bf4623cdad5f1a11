"""No value of a setting is shown unless it is known to be harmless: not by an error, by ``config show`` or by ``check``."""

from __future__ import annotations

import datetime as dt
import re
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.support.command import in_process
from virtflow.cli import main
from virtflow.cli.checks import probes
from virtflow.history.storage.delta import Store
from virtflow.runtime.configuration import load, survey
from virtflow.runtime.kafka.clients import client_settings, tls_context, unusable
from virtflow.runtime.secrets import HARMLESS, HIDDEN, harmless, plain_url, secret_names
from virtflow.runtime.settings import History, Kafka, Settings
from virtflow.schemas.errors import SettingError


@pytest.fixture(autouse=True)
def no_broker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none, and one that may still come is of no account here."""
    monkeypatch.setattr(probes, "BROKER_SECONDS", 0.1)


SECRET = "hunter2"  # noqa: S105, what must not be shown
FILES = {
    "unknown name": f'[kafka]\nsasl_password = "{SECRET}"\n',
    "unknown name of a map": f'[kafka]\npassword = {{a = "{SECRET}"}}\n',
    "unknown section": f'[secrets]\nkafka = "{SECRET}"\n',
    "name without a section": f'sasl_password = "{SECRET}"\n',
    "section that is a value": f'kafka = "{SECRET}"\n',
    "librdkafka's password": f"[kafka]\nclient = {{'sasl.password' = '{SECRET}'}}\n",
    "librdkafka's password among wrong ones": f"[kafka]\nclient = {{'sasl.password' = '{SECRET}', 'linger.ms' = 5}}\n",
    "Java's": f"""[kafka]\nclient = {{'sasl.jaas.config' = 'x required username="u" password="{SECRET}";'}}\n""",
    "pass phrase": f"[kafka]\nclient = {{'ssl.key.password' = '{SECRET}', 'ssl.key.passphrase' = '{SECRET}'}}\n",
    "any client's": f"[kafka]\nclient = {{'my.own.thing' = '{SECRET}'}}\n",
    "map as text": f'[kafka]\nclient = "sasl.password={SECRET}"\n',
    "map as a list": f'[kafka]\nclient = ["sasl.password={SECRET}"]\n',
    "map within a map": f"[kafka]\nclient = {{'linger.ms' = {{x = '{SECRET}'}}}}\n",
    "map in place of a word": f"[kafka]\nsasl_mechanism = {{password = '{SECRET}'}}\n",
    "map in a list": f"[exporter]\ninclude = [{{password = '{SECRET}'}}]\n",
    "registry's URL": f'[registry]\nurl = "https://user:{SECRET}@registry:8081"\n',
    "registry's query": f'[registry]\nurl = "https://registry:8081/?token={SECRET}"\n',
    "no URL": f'[registry]\nurl = "ftp://user:{SECRET}@[registry"\n',
    "storage's endpoint": f'[history]\npath = "s3://bucket/x"\ns3_endpoint = "http://user:{SECRET}@storage"\n',
    "storage's address": f'[history]\npath = "s3://key:{SECRET}@bucket/x"\n',
    "storage's query": f'[history]\npath = "s3://bucket/x?token={SECRET}"\ns3_instance_credentials = true\n',
    "storage's query, without keys": f'[history]\npath = "s3://bucket/x?token={SECRET}"\n',
    "storage's endpoint's query": f'[history]\npath = "s3://bucket/x"\ns3_endpoint = "http://storage/?{SECRET}"\ns3_instance_credentials = true\n',
    "no address": f'[history]\npath = "gs://key:{SECRET}@bucket/x"\n',
    "cloud key": f"[history]\nstorage = {{AWS_SECRET_ACCESS_KEY = '{SECRET}', azure_storage_sas_key = '{SECRET}'}}\n",
    "cloud key id": f"[history]\nstorage = {{AWS_ACCESS_KEY_ID = '{SECRET}', google_service_account_key = '{SECRET}'}}\n",
    "proxy": f"[history]\nstorage = {{proxy_url = 'http://user:{SECRET}@proxy'}}\n",
    "libvirt": f'[libvirt]\nuri = "qemu+tcp://user:{SECRET}@host.invalid/system"\n',
}
COMMANDS = (
    ("config", "show"),
    ("config", "show", "--json"),
    ("check", "--for", "history"),
    ("history", "verify"),
)
OF_LIBVIRT = (("check", "--for", "node"), ("doctor",), ("snapshot",))
"""They ask it, and wait."""


@pytest.mark.parametrize("place", FILES)
def test_no_command_shows_a_secret(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: what is printed is what counts."""
    file = tmp_path / "virtflow.toml"
    file.write_text(FILES[place])
    file.chmod(0o600)
    for words in (*COMMANDS, *(OF_LIBVIRT if place == "libvirt" else ())):
        monkeypatch.setattr(sys, "argv", ["virtflow", *words, "--config", str(file)])
        main.run()
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err, words
        assert "defect" not in said.err, said.err


@pytest.mark.parametrize("variable", ["KAFKA_SASL_PASSWORD", "REGISTRY_PASSWORD", "HISTORY_S3_SECRET_KEY", "KAFKA_SECURITY"])
def test_an_unknown_variable_is_named_without_its_value(variable: str) -> None:
    (error,) = survey(None, {f"VIRTFLOW_{variable}": SECRET}).errors
    assert f"VIRTFLOW_{variable}" in str(error)
    assert SECRET not in str(error)


@given(st.text(), st.sampled_from(sorted(HARMLESS)))
def test_only_listed_names_of_other_programs_settings_are_shown(name: str, path: str) -> None:
    shown = harmless(path, {name: SECRET})[name]
    assert shown == (SECRET if name.lower() in HARMLESS[path] else HIDDEN)


def test_no_listed_name_is_one_of_a_secret() -> None:
    """But for files, which are named and not shown."""
    assert not [name for names in HARMLESS.values() for name in names if secret_names({name: ""})]
    assert not [name for names in HARMLESS.values() for name in names if re.search("passw|secret|token$|credential|jaas|pem", name)]


def test_what_is_harmless_is_shown() -> None:
    assert harmless("kafka.client", {"linger.ms": "5", "sasl.password": "x"}) == {"linger.ms": "5", "sasl.password": HIDDEN}
    assert harmless("history.storage", {"AWS_REGION": "eu", "aws_endpoint_url": "http://a:b@s3"}) == {
        "AWS_REGION": "eu",
        "aws_endpoint_url": f"http://{HIDDEN}@s3",
    }
    assert harmless("history.serve_labels", {"job": "virtflow"}) == {"job": "virtflow"}
    assert harmless("producer.interval_seconds", 5.0) == 5.0
    assert harmless("exporter.include", ["core", "guest"]) == ["core", "guest"]
    assert plain_url("kafka-1:9092,kafka-2:9092") == "kafka-1:9092,kafka-2:9092"
    assert plain_url("qemu+ssh://root@host/system?socket=/x") == f"qemu+ssh://{HIDDEN}@host/system?socket=/x"


def test_a_client_that_refuses_its_settings_does_not_tell_them() -> None:
    """Librdkafka's own words repeat a value."""
    kafka = Kafka(client={"sasl.jaas.config": SECRET, "linger.ms": "x"})
    error = unusable(kafka, f'Invalid value "{SECRET}" for configuration property')
    assert SECRET not in str(error)
    assert "'linger.ms': 'x'" in str(error)


def test_addresses_with_users_are_refused_without_them() -> None:
    for make in (
        lambda: load(None, {"VIRTFLOW_REGISTRY_URL": f"https://user:{SECRET}@registry"}),
        lambda: load(None, {"VIRTFLOW_HISTORY_S3_ENDPOINT": f"https://user:{SECRET}@storage"}),
        lambda: Store(History(path=f"s3://user:{SECRET}@bucket/x")),
    ):
        with pytest.raises(SettingError) as caught:
            make()
        assert SECRET not in str(caught.value)
        assert caught.value.fix


@pytest.mark.parametrize("servers", [f"user:{SECRET}@kafka-1:9092", f"kafka-1:9092,SASL_SSL://user:{SECRET}@kafka-2:9093"])
def test_brokers_with_a_user_are_refused_without_it(servers: str) -> None:
    with pytest.raises(SettingError) as caught:
        load(None, {"VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": servers})
    assert caught.value.key == "kafka.bootstrap_servers"
    assert "kafka.sasl_password_file" in caught.value.fix
    assert SECRET not in str(caught.value)


def test_the_registry_s_credentials_come_from_a_file(tmp_path: Path) -> None:
    """A user without a file, and a file that others can read, are said by ``check``."""
    password = tmp_path / "password"
    password.write_text(f"{SECRET}\n")
    password.chmod(0o644)
    file = tmp_path / "virtflow.toml"
    file.write_text(f'[registry]\nurl = "http://127.0.0.1:1"\nusername = "u"\npassword_file = "{password}"\n')
    done = in_process("check", "--for", "exporter", "--config", str(file))
    assert "other users can use this secret" in done.stdout
    assert SECRET not in done.stdout
    file.write_text('[registry]\nurl = "http://127.0.0.1:1"\nusername = "u"\n')
    assert "registry.password_file is not" in in_process("check", "--for", "exporter", "--config", str(file)).stdout


def certificate(folder: Path, pass_phrase: str) -> tuple[str, str]:
    """The files of a certificate and of its key, encrypted where there is a pass phrase."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "virtflow")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(days=1))
    (folder / "certificate.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    how = BestAvailableEncryption(pass_phrase.encode()) if pass_phrase else NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    return str(folder / "certificate.pem"), str(folder / "key.pem")


def test_an_encrypted_key_needs_a_file_with_its_pass_phrase_and_asks_nobody(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path, SECRET)
    kafka = Kafka(tls_certificate_file=chain, tls_key_file=key)
    with pytest.raises(SettingError, match="encrypted") as caught:
        tls_context(kafka)
    assert "kafka.tls_key_password_file" in caught.value.fix
    file = tmp_path / "pass-phrase"
    with_file = Kafka(tls_certificate_file=chain, tls_key_file=key, tls_key_password_file=str(file))
    file.write_text("wrong\n")
    with pytest.raises(SettingError, match="not the pass phrase"):
        tls_context(with_file)
    file.write_text(f"{SECRET}\n")
    tls_context(with_file)
    assert client_settings(Settings(kafka=with_file))["ssl.key.password"] == SECRET


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path, "")
    tls_context(Kafka(tls_certificate_file=chain, tls_key_file=key))
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nno\n")
    for kafka, setting in (
        (Kafka(tls_ca_file=str(garbage)), "kafka.tls_ca_file"),
        (Kafka(tls_certificate_file=str(garbage), tls_key_file=key), "kafka.tls_key_file"),
    ):
        with pytest.raises(SettingError, match=re.escape(setting)):
            tls_context(kafka)
