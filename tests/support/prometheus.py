"""A real Prometheus of a test's own, and promtool: what the pipeline exposes is judged by those who read it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.started import Started

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
READY_SECONDS = 30.0
STOP_SECONDS = 30.0
REQUEST_SECONDS = 30.0


class PrometheusError(AssertionError):
    """Prometheus or promtool refused; the text is its own."""


class Sample(NamedTuple):
    """One element of an instant vector: its labels (with ``__name__`` where it has one), value, and time in Unix seconds."""

    labels: dict[str, str]
    value: float
    time: float


class Prometheus(Started):
    """Debian's Prometheus scraping ``targets`` (job name: HOST:PORT, ...) with the project's own rules.

    ``with Prometheus(folder, {"virtflow": ["127.0.0.1:9177"]}) as prometheus`` starts it on a port that the system hands out.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Sequence[str]],
        *,
        interval_seconds: float = 1.0,
        remote_read: str = "",
        program: str = "prometheus",
    ) -> None:
        """Nothing runs before ``start``. ``remote_read`` is the URL of a long-term storage; ``program`` another Prometheus than Debian's."""
        self._remote_read = remote_read
        self.program = program
        self.external_labels: dict[str, str] = {}
        self.read_settings: dict[str, Any] = {"read_recent": True}
        """What is set for ``remote_read`` beside its URL."""
        self.rules = True
        """Whether the project's rules are evaluated, at each interval, also through ``remote_read``."""
        self.alertmanagers: list[str] = []
        """Where alerts are sent, each HOST:PORT."""
        self.scrape_settings: dict[str, Any] = {}
        """What is set for every job beside its targets: scheme, tls_config, basic_auth, authorization."""
        self.more: list[str] = []
        """Further switches."""
        self._folder = folder
        self._targets = targets
        self._interval = f"{round(interval_seconds * 1000)}ms"
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it is ready; raises PrometheusError with its log when it is not."""
        config = self._write_config()
        command = [*DIES_WITH_US, self.program, f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]
        command += self.more
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise PrometheusError(f"Prometheus is not ready: {self._log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it (TERM) and wait until it is gone; nothing happens when it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
        self._process = None

    def close(self) -> None:
        """Stop it."""
        self.stop()

    def query(self, promql: str, at: float | None = None) -> list[Sample]:
        """Return the instant vector of a query, now or at a Unix time; raises PrometheusError when it is refused."""
        result = self._get("query", {"query": promql} | ({} if at is None else {"time": f"{at:.3f}"}))
        return [Sample(element["metric"], float(element["value"][1]), float(element["value"][0])) for element in result["result"]]

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Return each series' points (Unix seconds, value) of a query at ``start``, a step later, and so on up to ``end``."""
        result = self._get("query_range", {"query": promql, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"})
        return [(element["metric"], [(float(t), float(v)) for t, v in element["values"]]) for element in result["result"]]

    def value(self, promql: str) -> float | None:
        """Return the one value of a query, None when it has no element; raises PrometheusError when it has several."""
        samples = self.query(promql)
        if len(samples) > 1:
            raise PrometheusError(f"{promql} has {len(samples)} elements: {samples[:5]}")
        return samples[0].value if samples else None

    def points(self, selector: str, seconds: float, at: float | None = None) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Return each series' own scraped points (Unix seconds, value) of the last ``seconds``, as stored and not interpolated."""
        window = {"query": f"{selector}[{round(seconds * 1000)}ms]"} | ({} if at is None else {"time": f"{at:.3f}"})
        result = self._get("query", window)
        return [(element["metric"], [(float(t), float(v)) for t, v in element["values"]]) for element in result["result"]]

    def warnings(self, promql: str, at: float | None = None) -> list[str]:
        """Return what Prometheus warns of in the answer to a query: a storage that could not answer, for one."""
        asked = {"query": promql} | ({} if at is None else {"time": f"{at:.3f}"})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{urllib.parse.urlencode(asked)}", timeout=REQUEST_SECONDS) as reply:  # noqa: S310 - our own
            return list(json.load(reply).get("warnings", []))

    def wait_for(self, promql: str, seconds: float) -> list[Sample]:
        """Return the first answer that has an element; raises PrometheusError when none comes in time."""
        deadline = time.monotonic() + seconds
        while not (samples := self.query(promql)):
            if time.monotonic() > deadline:
                raise PrometheusError(f"{promql} has no element after {seconds} s; targets: {self.targets()}")
            time.sleep(0.1)
        return samples

    def wait_until_gone(self, promql: str, seconds: float) -> None:
        """Wait until a query has no element any more; raises PrometheusError with what is left when it still has one in the end."""
        deadline = time.monotonic() + seconds
        while samples := self.query(promql):
            if time.monotonic() > deadline:
                raise PrometheusError(f"{promql} still has {samples[:5]} after {seconds} s")
            time.sleep(0.1)

    def targets(self) -> dict[str, str]:
        """Return each target's URL with its last error, "" when the last scrape was fine."""
        return {target["scrapeUrl"]: target["lastError"] for target in self._get("targets", {"state": "active"})["activeTargets"]}

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts", {})["alerts"] if alert["state"] == "firing"}

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Return what the API says of each alert of this name now: labels, annotations, state (``pending`` or ``firing``)..."""
        return [alert for alert in self._get("alerts", {})["alerts"] if alert["labels"]["alertname"] == name]

    @property
    def _log(self) -> Path:
        return self._folder / "prometheus.log"

    def _write_config(self) -> Path:
        jobs = [
            {"job_name": name, "static_configs": [{"targets": list(targets)}], **self.scrape_settings}
            for name, targets in self._targets.items()
        ]
        config: dict[str, Any] = {
            "global": {"scrape_interval": self._interval, "evaluation_interval": self._interval, "external_labels": self.external_labels},
            "rule_files": [str(RULES / name) for name in ("rules.yml", "alerts.yml")] if self.rules else [],
            "scrape_configs": jobs,
        }
        if self.alertmanagers:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": self.alertmanagers}]}]}
        if self._remote_read:
            config["remote_read"] = [{"url": self._remote_read, **self.read_settings}]
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        return file

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=1.0):  # noqa: S310 - our own
            return True
        return False

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:  # noqa: ANN401 - the shape is the API's, by path
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=REQUEST_SECONDS) as reply:  # noqa: S310 - our own
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise PrometheusError(f"{url}: {error.read().decode(errors='replace')[:500]}") from error


def check_metrics(text: str | bytes) -> None:
    """Hold an exposition against ``promtool check metrics``; raises PrometheusError with every complaint, warnings included."""
    raw = text.encode() if isinstance(text, str) else text
    done = subprocess.run(["promtool", "check", "metrics"], input=raw, capture_output=True, check=False)
    if done.returncode or done.stderr.strip():
        raise PrometheusError((done.stderr or done.stdout).decode(errors="replace")[:3000])


def check_rule_tests(file: Path) -> None:
    """Run a file of rule tests with ``promtool test rules``; raises PrometheusError with what differs."""
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PrometheusError(f"{file.name}: {done.stdout}{done.stderr}")
