"""The Prometheus that tests judge by: it scrapes, answers, and tells a gone series from a missing one."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.prometheus import Prometheus, PrometheusError, check_metrics

EXPOSITION = '# HELP vm_vcpus_current Virtual CPUs.\n# TYPE vm_vcpus_current gauge\nvm_vcpus_current{uuid="u"} 2\n'


class _Page(BaseHTTPRequestHandler):
    text = EXPOSITION

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_series_arrives_and_vanishes(tmp_path: Path) -> None:
    """A series is there after a scrape, with its points, and gone after a scrape without it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Prometheus(tmp_path, {"virtflow": [f"127.0.0.1:{server.server_port}"]}, interval_seconds=0.2) as prometheus:
            (sample,) = prometheus.wait_for("vm_vcpus_current", 20.0)
            assert (sample.labels["uuid"], sample.value) == ("u", 2.0)
            ((_, points),) = prometheus.points("vm_vcpus_current", 60.0)
            assert {value for _, value in points} == {2.0}
            assert list(prometheus.targets().values()) == [""]
            _Page.text = "# empty\n"
            prometheus.wait_until_gone("vm_vcpus_current", 20.0)
            with pytest.raises(PrometheusError, match="parse error"):
                prometheus.query("no(")
    finally:
        server.shutdown()
        server.server_close()
        _Page.text = EXPOSITION


def test_promtool_complains() -> None:
    """What promtool warns of is an error here."""
    check_metrics(EXPOSITION)
    with pytest.raises(PrometheusError, match="no help text"):
        check_metrics("vm_vcpus_current 2\n")
    with pytest.raises(PrometheusError):
        check_metrics("not an exposition")
