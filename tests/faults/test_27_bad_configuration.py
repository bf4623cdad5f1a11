"""Fault 27: bad configuration. ``check`` exits 1 with file, key, value, reason and fix of everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.command import virtflow

NOWHERE = "qemu+unix:///system?socket=/nowhere/sock"


class Bad(NamedTuple):
    """A settings file, and of its error: the thing, a part of its value, of the detail, and of the fix."""

    text: str
    value: str
    detail: str
    fix: str


TABLE = {
    "no TOML": Bad("[kafka\n", "(whole file)", "no TOML", "mend that line"),
    "a value twice": Bad(
        "[log]\nlevel = 'info'\nlevel = 'info'\n", "(whole file)", "Cannot overwrite a value (at line 3", "mend that line"
    ),
    "unknown section": Bad("[kafak]\nx = 1\n", "kafak", "there is no such setting", "did you mean kafka?"),
    "unknown key": Bad(
        "[producer]\ninterval = 1\n",
        "producer.interval = '[REDACTED]'",
        "there is no such setting",
        "did you mean producer.interval_seconds?",
    ),
    "key without section": Bad(
        "bootstrap_servers = 'k:9092'\n", "bootstrap_servers", "no such setting", "did you mean kafka.bootstrap_servers?"
    ),
    "wrong type": Bad("[producer]\ninterval_seconds = 'soon'\n", "'soon'", "Expected `float`, got `str`", "give 0.1 to 3600"),
    "boolean for a number": Bad("[topics]\npartitions = true\n", "True", "Expected `int`, got `bool`", "give 1 to 10000"),
    "too small": Bad("[producer]\ninterval_seconds = 0\n", "producer.interval_seconds = 0", "Expected `float` >= 0.1", "give 0.1 to 3600"),
    "too large": Bad("[processors]\ndead_letter_share = 1.5\n", "1.5", "Expected `float` <= 1.0", "give above 0, at most 1"),
    "not a number": Bad("[producer]\ninterval_seconds = nan\n", "nan", "Expected `float`", "give 0.1 to 3600"),
    "not one of": Bad("[log]\nlevel = 'loud'\n", "log.level = 'loud'", "Invalid enum value 'loud'", '"warning"'),
    "address without port": Bad("[exporter]\nlisten = '0.0.0.0'\n", "'0.0.0.0'", "Expected `str`", "127.0.0.1:9177"),
    "IPv6 without brackets": Bad("[exporter]\nlisten = '::1:9177'\n", "'::1:9177'", "Expected `str`", "[::1]:9177"),
    "text for a list": Bad("[exporter]\ninclude = 'core'\n", "exporter.include = 'core'", "Expected `array`, got `str`", "Default: []"),
    "number in a list": Bad("[exporter]\ninclude = [1]\n", "exporter.include = [1]", "Expected `str`, got `int`", "Default: []"),
    "registry without scheme": Bad("[registry]\nurl = 'registry:8081'\n", "registry:8081", "no http or https URL", "http://registry:8081"),
    "Prometheus by another protocol": Bad(
        "[adapter]\nprometheus_url = 'ftp://x'\n", "adapter.prometheus_url = 'ftp://x'", "is no http or https URL", "http://prometheus:9090"
    ),
    "topic prefix": Bad("[topics]\nprefix = 'a b'\n", "topics.prefix = 'a b'", "Expected `str`", "give as in"),
    "empty group": Bad("[processors]\ngroup = ''\n", "processors.group = ''", "length >= 1", "give not empty"),
}
"""Files that are refused as they are read."""

CONTRADICTIONS = {
    "unknown metric": Bad(
        "[exporter]\nexclude = ['vm_cpu_second_total']\n", "'vm_cpu_second_total'", "no such name", "vm_cpu_seconds_total"
    ),
    "unknown label": Bad("[exporter]\nvm_labels = ['hostname']\n", "'hostname'", "no such name", "did you mean name?"),
    "foreign label": Bad("[exporter]\nvm_labels = ['rack']\n", "'rack'", "no such name", "one of name, node"),
    "SASL without user": Bad(
        "[kafka]\nsecurity_protocol = 'SASL_SSL'\n", "'SASL_SSL'", "needs kafka.sasl_username", "set kafka.sasl_username"
    ),
    "password without SASL": Bad("[kafka]\nsasl_username = 'me'\n", "'PLAINTEXT'", "sasl_username has no effect", "SASL_SSL"),
    "CA without TLS": Bad("[kafka]\ntls_ca_file = '/etc/hostname'\n", "'PLAINTEXT'", "tls_ca_file has no effect", "SSL"),
    "certificate without key": Bad(
        "[kafka]\nsecurity_protocol = 'SSL'\ntls_certificate_file = '/etc/hostname'\n",
        "tls_certificate_file",
        "tls_key_file is not",
        "both",
    ),
    "read back too short": Bad("[producer]\ninterval_seconds = 60\n", "read_back_seconds = 60", "leaves a gap", "180 or more"),
    "unknown broker setting": Bad(
        "[kafka]\nclient = { linger = '5' }\n",
        "kafka.client = {'linger': '[REDACTED]'}",
        'No such configuration property: "linger"',
        "section kafka",
    ),
    "address of another host": Bad(
        "[exporter]\nlisten = '192.0.2.1:9177'\n", "192.0.2.1:9177", "annot assign requested address", "--listen"
    ),
    "S3 key without secret": Bad(
        "[history]\npath = 's3://b/p'\ns3_access_key_file = '/etc/hostname'\n", "s3_access_key_file", "s3_secret_key_file is not", "both"
    ),
    "S3 without a bucket": Bad(
        "[history]\ns3_endpoint = 'http://s3:9000'\n", "history.path = ", "s3_endpoint has no effect", "s3://BUCKET"
    ),
    "secret in a map": Bad(
        "[history]\npath = 's3://b/p'\nstorage = { AWS_SECRET_ACCESS_KEY = 'x' }\n",
        "history.storage",
        "a secret that everyone who can read the settings sees",
        "s3_secret_key_file",
    ),
    "missing secret": Bad(
        "[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_password_file = '/nowhere/secret'\n", "/nowhere/secret", "No such file", "read it"
    ),
}
"""Files that read well and can't work; what is outside of them is looked at too, so that other findings may stand beside."""


@pytest.mark.parametrize("name", TABLE)
def test_a_file_that_is_refused(name: str, tmp_path: Path) -> None:
    """One finding with file, key, value, reason and fix; for people one line of it."""
    bad = TABLE[name]
    file = tmp_path / "virtflow.toml"
    file.write_text(bad.text)
    done = virtflow("check", "--config", str(file), "--json")
    assert done.returncode == 1
    assert not done.stderr
    (found,) = json.loads(done.stdout)["findings"]
    assert not found["ok"]
    assert bad.value in found["value"]
    assert bad.detail in found["detail"]
    assert f"file {file}" in found["detail"]
    assert bad.fix in found["fix"]
    told = virtflow("check", "--config", str(file))
    assert told.returncode == 1
    first = told.stdout.splitlines()[0]
    assert first.startswith(f"✗ setting {found['value']}")
    assert f"; fix: {found['fix']}" in first


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_file_that_cannot_work(name: str, tmp_path: Path) -> None:
    bad = CONTRADICTIONS[name]
    file = tmp_path / "virtflow.toml"
    file.write_text(bad.text)
    service = "exporter" if "broker" in name else "node"
    done = virtflow("check", "--config", str(file), "--for", service, "--connect", NOWHERE, "--json")
    assert done.returncode == 1
    assert not done.stderr
    found = [
        one for one in json.loads(done.stdout)["findings"] if not one["ok"] and bad.value in one["value"] and bad.detail in one["detail"]
    ]
    assert len(found) == 1, done.stdout
    assert bad.fix in found[0]["fix"]


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    """Three errors in the file and one in the environment are four findings."""
    file = tmp_path / "virtflow.toml"
    file.write_text("[producer]\ninterval_seconds = 0\nnod = 'x'\n[exporter]\nlisten = 'x'\n")
    done = virtflow("check", "--config", str(file), "--json", env={"VIRTFLOW_LOG_LEVEL": "loud"})
    assert done.returncode == 1
    told = json.loads(done.stdout)["findings"]
    assert len(told) == 4
    assert {one["value"].split(" = ")[0] for one in told} == {"producer.interval_seconds", "producer.nod", "exporter.listen", "log.level"}


@pytest.mark.parametrize(
    ("setting", "mode", "detail", "fix"),
    [
        ("sasl_password_file", 0o644, "other users can use this secret: -rw-r--r--", "chmod o= "),
        ("tls_key_file", 0o604, "other users can use this secret: -rw----r--", "chmod o= "),
        ("tls_ca_file", 0o646, "other users can change it: -rw-r--rw-", "chmod o-w "),
    ],
)
def test_file_modes(setting: str, mode: int, detail: str, fix: str, tmp_path: Path) -> None:
    """A secret that others can read is found, and so is a file of certificates that others can write; with the mode fixed it is not."""
    named = tmp_path / "named"
    named.write_text("s3cret-that-no-output-may-hold\n")
    named.chmod(mode)
    file = tmp_path / "virtflow.toml"
    file.write_text(f"[kafka]\n{setting} = '{named}'\n")
    done = virtflow("check", "--config", str(file), "--for", "node", "--connect", NOWHERE, "--json")
    (found,) = (one for one in json.loads(done.stdout)["findings"] if one["value"] == str(named))
    assert not found["ok"]
    assert detail in found["detail"]
    assert found["fix"] == f"{fix}{named}"
    named.chmod(0o640)
    again = virtflow("check", "--config", str(file), "--for", "node", "--connect", NOWHERE, "--json")
    (fixed,) = (one for one in json.loads(again.stdout)["findings"] if one["value"] == str(named))
    assert fixed["ok"]
    assert "s3cret" not in done.stdout + again.stdout


def test_secrets_of_the_object_store(tmp_path: Path) -> None:
    """Missing, open to others, fine: looked at where the history is, and nowhere else; with a bad one the storage is not asked."""
    secrets = {key: tmp_path / key for key in ("s3_access_key_file", "s3_secret_key_file")}
    config = tmp_path / "virtflow.toml"
    lines = "".join(f"{key} = '{path}'\n" for key, path in secrets.items())
    config.write_text(f"[history]\npath = 's3://b/p'\ns3_endpoint = 'http://127.0.0.1:1'\n{lines}")

    def told(service: str) -> dict[str, tuple[bool, str]]:
        env = {"VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
        done = virtflow("check", "--config", str(config), "--for", service, "--connect", NOWHERE, "--json", env=env)
        assert not done.stderr
        found = {one["value"]: (one["ok"], one["detail"]) for one in json.loads(done.stdout)["findings"]}
        return {value: told for value, told in found.items() if value in map(str, secrets.values()) or value.startswith("s3://")}

    assert told("node") == {}
    assert {value: ok for value, (ok, _) in told("history").items()} == {str(path): False for path in secrets.values()}
    for path in secrets.values():
        path.write_text("s3cret\n")
        path.chmod(0o644)
    assert all("other users can use this secret" in detail for _, detail in told("history").values())
    for path in secrets.values():
        path.chmod(0o600)
    fixed = told("history")
    assert [fixed.pop(str(path))[0] for path in secrets.values()] == [True, True]
    assert [ok for ok, _ in fixed.values()] == [False], "the storage is asked now"


def test_the_file_of_the_last_migrations(tmp_path: Path) -> None:
    """Looked at where it is used: `virtflow node` with --keep-last; its folder must be writable, and what is there a file."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    there = tmp_path / "folder"
    there.mkdir()
    for path, ok in ((blocked / "m.jsonl", False), (there, False), (tmp_path / "new" / "m.jsonl", True), (blocked, True)):
        for keep in ("true", "false"):
            env = {"VIRTFLOW_EXPORTER_KEEP_FILE": str(path), "VIRTFLOW_EXPORTER_KEEP_LAST": keep}
            done = virtflow("check", "--for", "node", "--connect", NOWHERE, "--json", env=env)
            found = [one["ok"] for one in json.loads(done.stdout)["findings"] if "exporter.keep_file" in one["detail"]]
            assert found == ([ok] if keep == "true" else [])


def test_journal_that_is_no_folder(tmp_path: Path) -> None:
    """A path below a file can be no folder; one below a folder can be made."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    for folder, ok in ((blocked / "journal", False), (tmp_path / "new" / "journal", True)):
        env = {"VIRTFLOW_PRODUCER_JOURNAL_FOLDER": str(folder), "VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
        done = virtflow("check", "--for", "producer", "--connect", NOWHERE, "--json", env=env)
        (found,) = (one for one in json.loads(done.stdout)["findings"] if one["thing"] == "folder")
        assert found["ok"] is ok
        assert found["value"] == str(folder)
        assert ok or "is no folder (producer.journal_folder)" in found["detail"]
        assert not folder.exists()


def test_a_file_that_is_not_there() -> None:
    done = virtflow("check", "--config", "/nowhere/virtflow.toml")
    assert done.returncode == 1
    assert "✗ setting --config = '/nowhere/virtflow.toml': No such file or directory" in done.stdout
