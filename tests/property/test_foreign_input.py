"""What others wrote is taken or refused with our own errors: settings, the environment, a registry's answers and schemas.

``tests/corpus`` keeps what once ended in a foreign exception, or might: add a file where something new is found.
"""

from __future__ import annotations

import io
import json
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.command import in_process
from virtflow.cli.checks import probes
from virtflow.cli.checks.settings_check import contradictions
from virtflow.cli.checks.web_check import findings
from virtflow.cli.switches import setting, shown
from virtflow.history.writer.dedup import Sequences
from virtflow.history.writer.sample_batch import RawSamples
from virtflow.history.writer.validation import Intake
from virtflow.runtime.access.rules import read_rules
from virtflow.runtime.configuration import rows, survey
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.registry.client import RegistryClient
from virtflow.runtime.registry.schema_ids import SchemaIds
from virtflow.runtime.secrets import harmless
from virtflow.runtime.sections.rows import url_problem
from virtflow.runtime.settings import History, Registry, Settings, Web
from virtflow.schemas.avro.codec import CONFLUENT_HEADER, CONFLUENT_MAGIC, Codec
from virtflow.schemas.errors import RegistryUnavailableError, SettingError, UndecodableError
from virtflow.schemas.records import VmMetrics


@pytest.fixture(autouse=True)
def no_broker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none, and one that may still come is of no account here."""
    monkeypatch.setattr(probes, "BROKER_SECONDS", 0.1)


CORPUS = Path(__file__).parents[1] / "corpus"
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
PATHS = sorted(row.path for row in rows())
VARIABLES = sorted(row.variable for row in rows())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)
TYPES = st.sampled_from(("record", "array", "map", "enum", "fixed", "null", "long", "string", "bytes", "int", "VmMetrics", "a"))
WORDS = st.sampled_from(
    ("type", "name", "namespace", "fields", "items", "values", "symbols", "logicalType", "default", "size", "aliases", "doc")
)
NAMES = st.sampled_from(("VmMetrics", "uuid", "node", "vcpus", "guest", "a", "date", "decimal", "timestamp-micros", "uuid"))
SCHEMAS = st.recursive(
    TYPES | NAMES | st.none() | st.integers(-2, 2) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=14,
)
FIELDS = st.lists(st.dictionaries(WORDS, SCHEMAS, max_size=4) | st.builds(lambda n, t: {"name": n, "type": t}, NAMES, SCHEMAS), max_size=4)
RECORDS = st.builds(
    lambda fields, more: {**more, "type": "record", "name": "VmMetrics", "fields": fields},
    FIELDS,
    st.dictionaries(WORDS, SCHEMAS, max_size=2),
)
NOW = float(int(time.time()))


def surveyed(file: Path | None, environ: dict[str, str], switches: dict[str, object] | None = None) -> None:
    """Reads and shows the settings as commands do."""
    found = survey(file, environ, switches)
    for error in found.errors:
        assert isinstance(error, SettingError)
    for row in rows():
        shown(harmless(row.path, setting(found.settings, row.path)))
    list(contradictions(found.settings))


@pytest.mark.parametrize("name", sorted(path.name for path in (CORPUS / "settings").iterdir()))
def test_settings_of_the_corpus(name: str) -> None:
    file = CORPUS / "settings" / name
    surveyed(file, {})
    for words in (("config", "show"), ("check", "--for", "producer", "--connect", "qemu+unix:///x?socket=/n")):
        done = in_process(*words, "--config", str(file))
        assert done.returncode in {0, 1, 2}
        assert "defect" not in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


LINES = st.lists(
    st.sampled_from(["[producer]", "[kafka]", "[kafka.client]", "[[exporter]]", "[x.y]"])
    | st.builds(
        lambda key, value: f"{key} = {value}",
        st.sampled_from([path.partition(".")[2] for path in PATHS]),
        st.sampled_from(
            [
                "1",
                "-1",
                "1e400",
                "nan",
                "true",
                '"x"',
                "[]",
                "[1]",
                "{}",
                "{a={b=1}}",
                "2026-03-01",
                "07:32:00",
                "[[['a']]]",
                "0x7fffffffffffffffff",
            ]
        ),
    ),
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=LINES.map("\n".join) | ANY_TEXT)
def test_any_file_of_settings(tmp_path: Path, text: str) -> None:
    file = tmp_path / "v.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    surveyed(file, {})


@pytest.mark.parametrize("name", sorted(path.name for path in (CORPUS / "web").iterdir()))
def test_web_configurations_of_the_corpus(name: str) -> None:
    judged(CORPUS / "web" / name)


def judged(file: Path) -> None:
    """What a service does as it starts, and ``check`` before it: a file is taken, or refused with our own errors."""
    web = Web(config_file=str(file))
    told = list(findings(Settings(web=web), frozenset({"exporter"})))
    refused = ""
    try:
        read_rules(web)
    except SettingError as error:
        refused = str(error)
    refused.encode("utf-8", "backslashreplace")
    assert not refused or not all(finding.ok for finding in told), refused


WEB_KEYS = st.sampled_from(
    [
        *("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit", "headers", "interval", "burst", "X-Frame-Options"),
        *("cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file", "client_auth_type", "client_allowed_sans", "<<", "~", "1"),
    ]
)
WEB_VALUES = st.sampled_from(
    [
        *("x", "1", "-1", "1.5", ".nan", ".inf", "true", "~", "[]", "{}", "[1]", "1e400", "1:60:99", "0o9", "0b2", "0x", "'\\0'", '"\\0"'),
        *("2026-13-45", "2026-01-01", "2026-01-01T99:00:00Z", "9" * 5000, "!!int x", "!!float x", "!!bool x", "!!binary '*'", "!!null x"),
        *("!!set {a}", "!!omap [a]", "!!pairs [a]", "!!timestamp x", "!!merge x", "!!seq x", "!!map [x]", "!!python/object:os.system x"),
        *(
            "!x",
            "*x",
            "&x x",
            "&x [*x]",
            "&x {<<: *x}",
            '"\\ud800"',
            '"/etc/\\0"',
            "-----BEGIN PRIVATE KEY-----",
            "{a: [}",
            "|",
            "? x",
            "- x",
            "%x",
            "@x",
        ),
        *(
            "TLS13",
            "X25519",
            "[X25519]",
            "RequireAndVerifyClientCert",
            "deny",
            "1s",
            "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi",
        ),
    ]
)
WEB_SECTION = st.lists(st.builds("  {}: {}".format, WEB_KEYS, WEB_VALUES), min_size=1, max_size=5).map(
    lambda lines: "\n" + "\n".join(lines)
)
WEB_FILE = st.lists(st.builds("{}: {}".format, WEB_KEYS, WEB_SECTION | WEB_VALUES), max_size=4).map("\n".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=WEB_FILE | ANY_TEXT)
@example(text="\ufeffrate_limit: {burst: 1}")
@example(text="[" * 3_000)
@example(text='<<: {tls_server_config: "\\ud800"}')
@example(text="basic_auth_users:\n  a: !!int x")
def test_any_web_configuration(tmp_path: Path, text: str) -> None:
    file = tmp_path / "web.yml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    judged(file)


@given(st.dictionaries(st.sampled_from(VARIABLES), ANY_TEXT | st.binary(max_size=9).map(os.fsdecode), max_size=3))
@example({"VIRTFLOW_PRODUCER_NODE": "\udcff"})
@example({"VIRTFLOW_KAFKA_CLIENT": "a=\udcff"})
@example({"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "9" * 5000})
@example({"VIRTFLOW_PRODUCER_RING_ROUNDS": "9" * 400})
def test_any_environment(environ: dict[str, str]) -> None:
    surveyed(None, {name: value.replace("\0", "") for name, value in environ.items()})


@given(st.dictionaries(st.sampled_from(PATHS), ANY_TEXT, max_size=2))
def test_any_switches(switches: dict[str, object]) -> None:
    surveyed(None, {}, switches)


@pytest.mark.parametrize(
    "words",
    [("config", "show"), ("check", "--for", "producer", "--connect", "qemu+unix:///x?socket=/n"), ("history", "verify")],
    ids=" ".join,
)
def test_bytes_in_the_environment_are_named(words: tuple[str, ...]) -> None:
    done = in_process(*words, env={"VIRTFLOW_PRODUCER_NODE": "\udcff\udc9b2J"})
    assert "VIRTFLOW_PRODUCER_NODE" in done.stdout + done.stderr
    assert "defect" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("history", "query", "SELECT '\udcff'"),
        ("history", "where", "1d", "--vm", "\udcff"),
        ("history", "range", "vm_state", "--vm", "\udcff"),
        ("history", "forget", "--project", "\udcff", "--dry-run"),
        ("history", "verify", "--history", "/nowhere/\udcff"),
        ("config", "show", "--config", "/nowhere/\udcff"),
        ("tap", "\udcff"),
        ("\udcff",),
        ("producer", "--node", "\udcff", "--connect", "qemu+unix:///x?socket=/n"),
    ],
    ids=lambda words: " ".join(words[:3]).encode("ascii", "replace").decode(),
)
def test_bytes_in_an_argument_are_no_defect(words: tuple[str, ...], tmp_path: Path) -> None:
    done = in_process(*words, env={"VIRTFLOW_HISTORY_PATH": str(tmp_path)})
    assert done.returncode in {1, 2}, done.stderr
    assert "defect" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def decoded(schema: Any, body: bytes) -> None:  # noqa: ANN401, whatever JSON holds
    """A message of a foreign schema, one by one and among others."""
    message = CONFLUENT_HEADER.pack(CONFLUENT_MAGIC, 7) + body
    codec = Codec(fetch=lambda _: schema)
    try:
        codec.decode(message, VmMetrics)
    except UndecodableError as error:
        str(error).encode("utf-8", "backslashreplace")
    intake = Intake(codec, History(), OwnMetrics("history"))
    RawSamples(intake, Sequences()).rows([(message, NOW), (message, NOW)])


@pytest.mark.parametrize("name", sorted(path.name for path in (CORPUS / "schemas").iterdir()))
def test_schemas_of_the_corpus(name: str) -> None:
    schema = json.loads((CORPUS / "schemas" / name).read_text())
    for body in (b"", b"\0", b"\2a", b"\xff" * 9 + b"\1", bytes(range(40)), b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\1" * 3):
        decoded(schema, body)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(SCHEMAS | RECORDS, st.binary(max_size=40))
def test_any_schema_of_a_registry(schema: Any, body: bytes) -> None:  # noqa: ANN401, whatever JSON holds
    decoded(schema, body)


class Reply(io.BytesIO):
    """An answer of a registry."""

    def read1(self, size: int | None = -1) -> bytes:
        """Some of it."""
        return self.read(size)


ANSWERS = JSON.map(json.dumps) | st.builds(
    lambda key, value: json.dumps({key: value}), st.sampled_from(("id", "schema")), JSON | SCHEMAS.map(json.dumps)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(answer=ANSWERS.map(str.encode) | st.binary(max_size=40))
@example(answer=b"[" * 100_000)
@example(answer=b'{"id": ' + b"9" * 5000 + b"}")
@example(answer=b'{"id": 4294967296}')
@example(answer=b'{"id": true}')
@example(answer=b'{"schema": 5}')
@example(answer=b'{"schema": "' + b"[" * 60_000 + b'"}')
def test_any_answer_of_a_registry(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Reply(answer))
    client = RegistryClient(Registry(url="http://registry"))
    try:
        number = client.register("s", {"type": "long"})
    except RegistryUnavailableError:
        pass
    else:
        CONFLUENT_HEADER.pack(CONFLUENT_MAGIC, number)
    try:
        schema = client.schema(1)
    except RegistryUnavailableError:
        return
    if schema is not None:
        decoded(schema, b"\2a")


@given(ANY_TEXT | st.builds("{}://{}:{}/{}".format, st.sampled_from(("http", "https", "ftp")), ANY_TEXT, ANY_TEXT, ANY_TEXT))
@example("http://[")
@example("http://registry:99999")
@example("http://registry:x")
@example("http://\ud800")
@example("http://a b")
@example("http://a\nb")
def test_any_url_of_a_registry(url: str) -> None:
    if url_problem(url):  # it is refused as settings are read
        return
    client = RegistryClient(Registry(url=url, timeout_seconds=0.1))
    assert client.url.startswith("http")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kept=st.binary(max_size=40) | JSON.map(json.dumps).map(str.encode))
@example(kept=b"[" * 100_000)
@example(kept=b'{"url": "http://127.0.0.1:1", "schemas": {"1": []}, "ids": {"VmMetrics": [1]}}')
@example(kept=b'{"url": "http://127.0.0.1:1", "schemas": {"9": {"type": 5}}, "ids": {}}')
def test_any_file_of_what_a_registry_told(tmp_path: Path, kept: bytes) -> None:
    file = tmp_path / "registry.json"
    file.write_bytes(kept)
    ids = SchemaIds(Settings(registry=Registry(url="http://127.0.0.1:1", cache_file=str(file), timeout_seconds=0.1)))
    ids.connect()
