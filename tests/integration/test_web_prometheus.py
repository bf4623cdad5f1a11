"""A real Prometheus scrapes over TLS with the settings of docs/secure.md: by password, by certificate, by token; promtool reads the same files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml

from tests.support.broker import Broker
from tests.support.certificates import Authority
from tests.support.doc_blocks import block
from tests.support.exporter_process import ExporterProcess
from tests.support.prometheus import Prometheus
from tests.support.topic_writer import TopicWriter
from tests.support.vm_samples import sample
from virtflow.schemas.topics import METRICS

PASSWORD = "fakepassword"  # noqa: S105, of this test
TOKEN = "t0ken-of-prometheus"  # noqa: S105, as above


@pytest.fixture(scope="module")
def prefix(broker: Broker) -> str:
    """Topics with one VM."""
    writer = TopicWriter(broker.address)
    writer.write(METRICS, sample(1, 1, interval=3_600.0))
    return writer.prefix


@pytest.fixture
def secrets(tmp_path: Path) -> Authority:
    """All files that the page names, in one folder."""
    authority = Authority(tmp_path)
    for name, pair in (("exporter", authority.server()), ("prometheus", authority.issue("scraper", "prometheus.example"))):
        (tmp_path / f"{name}.pem").write_bytes(pair.certificate.read_bytes())
        (tmp_path / f"{name}.key").write_bytes(pair.key.read_bytes())
    for name in ("clients-ca.pem", "virtflow-ca.pem"):
        (tmp_path / name).write_bytes(authority.file.read_bytes())
    (tmp_path / "virtflow.password").write_text(PASSWORD)
    (tmp_path / "virtflow.token").write_text(TOKEN)
    (tmp_path / "web.tokens").write_text(f"{TOKEN} prometheus\n")
    return authority


def web_config(folder: Path, words: str) -> Path:
    """The page's file, with a password that the test knows."""
    content = yaml.safe_load(block(words))
    if "basic_auth_users" in content:
        content["basic_auth_users"] = {"prometheus": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()}
    file = folder / "web.yml"
    file.write_text(yaml.safe_dump(content))
    return file


def scrape_settings(folder: Path, words: str) -> dict[str, Any]:
    """The page's settings of the job, with the files of ``folder``."""
    (job,) = yaml.safe_load(block(words).replace("/etc/prometheus", str(folder)))["scrape_configs"]
    return {key: value for key, value in job.items() if key not in {"job_name", "static_configs"}}


@pytest.mark.parametrize(
    "words",
    [
        ("yaml web-config", "yaml scrape password"),
        ("yaml web-config", "yaml scrape token"),
        ("yaml web-config mtls", "yaml scrape certificate"),
    ],
)
def test_prometheus_scrapes_as_the_page_says(
    tmp_path: Path, broker: Broker, prefix: str, secrets: Authority, words: tuple[str, str]
) -> None:
    """With the page's settings the target is up; without the credentials it is down, and says so."""
    server, client = words
    file = web_config(tmp_path, server)
    done = subprocess.run(["promtool", "check", "web-config", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    settings: dict[str, object] = {"WEB_CONFIG_FILE": file}
    if "token" in client:
        settings |= {"WEB_TOKENS_FILE": tmp_path / "web.tokens", "WEB_RIGHTS": "prometheus=metrics"}
    process = ExporterProcess(tmp_path, broker.address, prefix, settings)
    process.context = secrets.trusting(secrets.issue("prober", "prometheus.example"))
    with process as exporter:
        exporter.wait_until_ready()
        assert exporter.status("/metrics") == (200 if "mtls" in server else 401)
        good = scrape_settings(tmp_path, client)
        with scraping(tmp_path / "good", exporter, good) as prometheus:
            prometheus.wait_for('up{job="virtflow"} == 1', 60.0)
            assert prometheus.wait_for("vm_info or vm_cpu_seconds_total", 60.0)
        with scraping(
            tmp_path / "bad", exporter, {"scheme": "https", "tls_config": {"ca_file": good["tls_config"]["ca_file"]}}
        ) as prometheus:
            prometheus.wait_for('up{job="virtflow"} == 0', 60.0)
            (why,) = prometheus.targets().values()
            # Python's asyncio closes a connection without a certificate; whether OpenSSL's alert still leaves first is a matter of time.
            reasons = ("certificate required", "EOF", "connection reset") if "mtls" in server else ("401 Unauthorized",)
            assert any(reason in why for reason in reasons), why


def scraping(folder: Path, exporter: ExporterProcess, settings: dict[str, Any]) -> Prometheus:
    """A Prometheus with these settings of its job."""
    prometheus = Prometheus(folder, {"virtflow": [f"localhost:{exporter.port}"]})
    prometheus.scrape_settings = settings
    return prometheus
