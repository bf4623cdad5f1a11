"""Everything that docs/secure.md describes at once: TLS, passwords and least rights on the broker, Prometheus by password, the history by certificate.

The producer's part is the simulator. What ``virtflow check`` says of each thing that breaks is in test_check_secured.py, of each right that is
missing in test_least_rights.py. With ``--long`` alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bcrypt
import yaml

from tests.support.certificates import Authority
from tests.support.doc_blocks import block
from tests.support.processors import eventually
from tests.support.prometheus import Prometheus
from tests.support.secured_service import COMMANDS, Service, least_rights
from virtflow.runtime.kafka.acls import Part

SECONDS = 120.0
PASSWORD = "of-prometheus"  # noqa: S105, of this test


def laid(folder: Path, authority: Authority) -> None:
    """The files that the page names, for servers and clients."""
    for name, pair in (("exporter", authority.server("web")), ("prometheus", authority.issue("scraper", "prometheus.example"))):
        (folder / f"{name}.pem").write_bytes(pair.certificate.read_bytes())
        (folder / f"{name}.key").write_bytes(pair.key.read_bytes())
    for name in ("clients-ca.pem", "virtflow-ca.pem"):
        (folder / name).write_bytes(authority.file.read_bytes())
    (folder / "virtflow.password").write_text(PASSWORD)
    users = {"basic_auth_users": {"prometheus": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()}}
    (folder / "password.yml").write_text(yaml.safe_dump(yaml.safe_load(block("yaml web-config")) | users))
    (folder / "certificate.yml").write_text(block("yaml web-config mtls"))


def scraping(folder: Path, words: str) -> dict[str, Any]:
    """The page's settings of a job, with the files of ``folder``."""
    (job,) = yaml.safe_load(block(words).replace("/etc/prometheus", str(folder)))["scrape_configs"]
    return {key: value for key, value in job.items() if key not in {"job_name", "static_configs"}}


def test_everything_is_closed_and_everything_works(tmp_path: Path) -> None:
    """What is scraped by password and what is read from the history by certificate are the same VMs; without them there is no answer."""
    with ExitStack() as stack:
        broker = stack.enter_context(least_rights(tmp_path / "broker"))
        laid(tmp_path, broker.authority)
        web = {Part.EXPORTER: {"web_config_file": str(tmp_path / "password.yml")}}
        running: dict[Part, Service] = {}
        for part in COMMANDS:
            running[part] = stack.enter_context(Service(part, broker, tmp_path, **web.get(part, {})))
        serve = Service(Part.HISTORY, broker, tmp_path, ("history", "serve"), web_config_file=str(tmp_path / "certificate.yml"))
        serve.context = broker.authority.trusting(broker.authority.issue("prober", "prober.example"))
        exporter = running[Part.EXPORTER]
        exporter.context = broker.authority.trusting()
        eventually("an exporter that wants a password", lambda: exporter.status("/metrics") == 401, SECONDS)
        live = Prometheus(tmp_path / "live", {"virtflow": [f"localhost:{exporter.port}"]})
        live.scrape_settings = scraping(tmp_path, "yaml scrape password")
        scraped = stack.enter_context(live).wait_for("count(vm_cpu_seconds_total) >= 4", SECONDS)
        eventually("rows in the history", lambda: running[Part.HISTORY].counted("virtflow_history_rows_total") >= 5, SECONDS)
        stack.enter_context(serve)
        eventually("a history that is ready", lambda: serve.status("/readyz") == 200, SECONDS)
        past = Prometheus(tmp_path / "past", {}, remote_read=f"https://localhost:{serve.port}/api/v1/read")
        past.read_settings |= {"tls_config": scraping(tmp_path, "yaml scrape certificate")["tls_config"]}
        kept = stack.enter_context(past).wait_for("count(vm_cpu_seconds_total) >= 4", SECONDS)
        assert scraped
        assert kept
        serve.context = broker.authority.trusting()
        assert serve.status("/api/v1/query?query=vm_cpu_seconds_total") == 0
