"""The exporter without a bus: fed from other threads, scraped over HTTP."""

from __future__ import annotations

import gzip
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.prometheus import check_metrics
from tests.support.served_exporter import get, served, settings_of
from tests.support.vm_samples import inventory, sample, status
from virtflow.exporter.scrape_cache import accepts_gzip
from virtflow.exporter.service import Exporter
from virtflow.schemas.errors import SettingError

SECONDS = 20.0


def test_records_from_a_thread_are_scraped() -> None:
    """Ready once fed; the exposition parses in full and promtool has nothing to say."""
    exporter = Exporter(settings_of())
    with served(exporter) as url:
        assert get(f"{url}/readyz")[0] == 503
        exporter.take([sample(), inventory(), status()])
        assert get(f"{url}/readyz")[0] == 200
        code, headers, body = get(f"{url}/metrics")
        assert (code, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        check_metrics(body)
        families = {family.name for family in text_string_to_metric_families(body.decode())}
        assert {"vm_cpu_seconds", "vm_info", "virtflow_node_up", "virtflow_exporter_vms", "virtflow_build_info"} <= families
        assert get(f"{url}/")[2].startswith(b"<!doctype html>")
        assert get(f"{url}/healthz")[0] == 200


def test_what_was_taken_before_serving_is_there() -> None:
    exporter = Exporter(settings_of())
    exporter.take([sample()])
    with served(exporter) as url:
        assert b"vm_state{" in get(f"{url}/metrics")[2]


def test_a_scrape_can_ask_for_a_part() -> None:
    """By group and by name; an unknown word is 400 with the groups."""
    exporter = Exporter(settings_of())
    exporter.take([sample(), status()])
    with served(exporter) as url:
        body = get(f"{url}/metrics?collect[]=vm_state&collect[]=node")[2].decode()
        assert {family.name for family in text_string_to_metric_families(body) if not family.name.startswith("virtflow_node")} == {
            "vm_state"
        }
        code, _, body_bytes = get(f"{url}/metrics?collect[]=bogus")
        assert code == 400
        assert b"groups: core, hypervisor" in body_bytes


def test_what_is_excluded_is_not_there() -> None:
    """Nor can a scrape ask for it."""
    exporter = Exporter(settings_of(exclude=["core", "pipeline"], vm_labels=[]))
    exporter.take([sample()])
    with served(exporter) as url:
        body = get(f"{url}/metrics")[2]
        assert b"vm_cpu_seconds_total" not in body
        assert b"virtflow_exporter" not in body
        assert b"name=" not in body
        assert get(f"{url}/metrics?collect[]=core")[2] == b""


def test_answers_are_gzipped_for_those_who_accept() -> None:
    """The same text, smaller."""
    exporter = Exporter(settings_of(exclude=["pipeline", "vm"]))
    exporter.take([sample(number) for number in range(50)])
    with served(exporter) as url:
        plain = get(f"{url}/metrics")
        packed = get(f"{url}/metrics", **{"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in plain[1]
        assert packed[1]["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed[2]) == plain[2]
        assert len(packed[2]) < len(plain[2]) / 5


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("", False),
        ("br", False),
        ("*", True),
    ],
)
def test_who_accepts_gzip(header: str, *, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


@pytest.mark.parametrize("fields", [{"include": ["bogus"]}, {"exclude": ["bogus"]}, {"vm_labels": ["bogus"]}])
def test_wrong_settings_show_at_start(fields: dict[str, list[str]]) -> None:
    with pytest.raises(SettingError, match="bogus"):
        Exporter(settings_of(**fields))


def test_needs_no_kafka_client_without_a_bus() -> None:
    """One host alone runs without confluent-kafka."""
    code = "import sys, virtflow.exporter.service; print([name for name in sys.modules if name.startswith('confluent_kafka')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=SECONDS)
    assert done.stdout == "[]\n"
