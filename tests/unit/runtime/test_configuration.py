"""Settings: default, file, environment and switch in rising order, and an exact word on every bad one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from virtflow.runtime.configuration import load, rows, survey
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import SettingError

INTERVAL = "producer.interval_seconds"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "virtflow.toml"


def test_every_setting_has_help_and_names_of_its_own() -> None:
    """One sentence of help each; no two settings share a variable, and a switch is shared only where it means the same."""
    found = list(rows())
    assert all(row.about.endswith(".") for row in found)
    assert len({row.variable for row in found}) == len(found)
    by_switch = Counter(row.switch for row in found if row.switch)
    assert {row.key for row in found if by_switch[row.switch] > 1} <= {"listen", "serve_listen"}


def test_defaults_alone_are_good() -> None:
    assert load(None, {}) == Settings()


@pytest.mark.parametrize(
    ("environ", "switches", "interval", "origin"),
    [
        ({}, {}, 3.0, "file"),
        ({"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "4"}, {}, 4.0, "environment VIRTFLOW_PRODUCER_INTERVAL_SECONDS"),
        ({"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "4"}, {INTERVAL: "5"}, 5.0, "switch --interval"),
        ({"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "4"}, {INTERVAL: None}, 4.0, "environment VIRTFLOW_PRODUCER_INTERVAL_SECONDS"),
    ],
)
def test_later_origins_win(file: Path, environ: dict[str, str], switches: dict[str, object], interval: float, origin: str) -> None:
    file.write_text("[producer]\ninterval_seconds = 3\n")
    found = survey(file, environ, switches)
    assert found.settings.producer.interval_seconds == interval
    assert found.origins[INTERVAL] == (f"file {file}" if origin == "file" else origin)
    assert not found.errors


def test_a_bad_value_that_a_later_origin_replaces_does_no_harm(file: Path) -> None:
    file.write_text("[producer]\ninterval_seconds = -3\n")
    assert load(file, {}, {INTERVAL: "2"}).producer.interval_seconds == 2.0


def test_lists_and_maps_from_one_line() -> None:
    environ = {"VIRTFLOW_EXPORTER_INCLUDE": "core, guest", "VIRTFLOW_KAFKA_CLIENT": "linger.ms=20,client.rack=a=b"}
    settings = load(None, environ)
    assert settings.exporter.include == ["core", "guest"]
    assert settings.kafka.client == {"linger.ms": "20", "client.rack": "a=b"}


BAD = [
    ("[producer]\ninterval_seconds = -1\n", INTERVAL, "Expected `float` >= 0.1", "Default: 10.0"),
    ('[producer]\ninterval_seconds = "soon"\n', INTERVAL, "Expected `float`, got `str`", "Default: 10.0"),
    ("[producer]\nintervall_seconds = 1\n", "producer.intervall_seconds", "no such setting", f"did you mean {INTERVAL}?"),
    ("interval_seconds = 1\n", "interval_seconds", "no such setting", f"did you mean {INTERVAL}?"),
    ("[kafak]\n", "kafak", "no such setting", "did you mean kafka?"),
    ("[weather]\n", "weather", "no such setting", "virtflow config sample"),
    ("producer = 1\n", "producer", "not a section", "[producer]"),
    ("[producer]\ninterval_seconds 1\n", "(whole file)", "no TOML", "line 2"),
    ('[kafka]\nsecurity_protocol = "TLS"\n', "kafka.security_protocol", "Invalid enum value 'TLS'", '"SASL_SSL"'),
    ("[kafka]\nclient = {linger = 5}\n", "kafka.client", "Expected `str`, got `int`", "librdkafka"),
    ('[exporter]\nlisten = "9177"\n', "exporter.listen", "Expected `str`", "give an address and a port"),
    ('[exporter]\ninclude = "core"\n', "exporter.include", "Expected `array`, got `str`", "[]"),
    ('[processors]\ngroup = ""\n', "processors.group", "length >= 1", "virtflow-processors"),
]


@pytest.mark.parametrize(("text", "key", "why", "fix"), BAD)
def test_bad_files(file: Path, text: str, key: str, why: str, fix: str) -> None:
    """Each names the file, the key, the reason and the fix."""
    file.write_text(text)
    with pytest.raises(SettingError) as caught:
        load(file, {})
    error = caught.value
    assert error.origin == f"file {file}"
    assert error.key == key
    assert why in error.why
    assert fix in str(error)


@pytest.mark.parametrize(
    ("environ", "key", "fix"),
    [
        ({"VIRTFLOW_PRODUCER_INTERVAL": "1"}, "VIRTFLOW_PRODUCER_INTERVAL", "VIRTFLOW_PRODUCER_INTERVAL_SECONDS"),
        ({"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "x"}, INTERVAL, "Default: 10.0"),
        ({"VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "nan"}, INTERVAL, "Default: 10.0"),
        ({"VIRTFLOW_CONFIG": "/nowhere/virtflow.toml"}, "--config", "can be read"),
    ],
)
def test_bad_environment(environ: dict[str, str], key: str, fix: str) -> None:
    with pytest.raises(SettingError, match=key) as caught:
        load(None, environ)
    assert fix in caught.value.fix


def test_foreign_variables_are_not_settings() -> None:
    """Only names of a section count: a folder of scripts or a debug flag is somebody else's."""
    assert load(None, {"VIRTFLOW_DATA": "/x", "VIRTFLOW_DEBUG": "1", "KAFKA_HEAP": "1"}) == Settings()


def test_survey_tells_every_error_and_keeps_the_good_values(file: Path) -> None:
    file.write_text('[producer]\ninterval_seconds = -1\nnode = "n1"\nring = 1\n[exporter]\nlisten = "x"\n')
    found = survey(file, {"VIRTFLOW_LOG_LEVEL": "loud"}, {"simulate.nodes": "0"})
    assert {error.key for error in found.errors} == {INTERVAL, "producer.ring", "exporter.listen", "log.level", "simulate.nodes"}
    assert found.settings.producer.node == "n1"
    assert found.settings.producer.interval_seconds == Settings().producer.interval_seconds


def test_a_folder_or_bytes_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="Is a directory"):
        load(tmp_path, {})
    garbage = tmp_path / "garbage.toml"
    garbage.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match="no TOML"):
        load(garbage, {})
