"""An exporter as its users run it: the installed command in a process of its own, scraped over HTTP."""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from prometheus_client.parser import text_string_to_metric_families

from tests.support import criteria
from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment
from tests.support.started import Started

REQUEST_SECONDS = 10.0

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by metric and labels."""


class ExporterProcess(Started):
    """``with ExporterProcess(folder, broker.address, prefix) as exporter`` starts it; it is killed at the end if it still runs.

    ``settings`` are further environment variables by their names without ``VIRTFLOW_``. ``command`` is what a subclass runs in its place.
    """

    command: ClassVar[str] = "exporter"

    def __init__(
        self, folder: Path, brokers: str, prefix: str, settings: Mapping[str, object] | None = None, *, inside: Sequence[str] = ()
    ) -> None:
        """Takes a port; nothing runs before ``start``. ``inside`` is what starts it somewhere else, as ``nsenter`` does."""
        self._inside = inside
        (self.port,) = free_ports(1)
        self.log = folder / f"{self.command}.log"
        listen = f"{self.command.upper()}_LISTEN"
        given = {"KAFKA_BOOTSTRAP_SERVERS": brokers, "TOPICS_PREFIX": prefix, listen: f"127.0.0.1:{self.port}"}
        given |= {name: str(value) for name, value in (settings or {}).items()}
        self.context: ssl.SSLContext | None = None
        """How its clients speak TLS with it, where it does."""
        self.headers: dict[str, str] = {}
        """What its clients send with each request."""
        self._environment = environment({f"VIRTFLOW_{name}": value for name, value in given.items()} | {"VIRTFLOW_LOG_FORMAT": "json"})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it and waits until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, *DIES_WITH_US, str(PROGRAM), self.command], env=self._environment, stderr=log, stdout=log
            )
        criteria.started(self.command, self._process, f"127.0.0.1:{self.port}", self.log)
        self.wait_until(lambda: self.status("/healthz") == 200, 30.0, "answers")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; its exit code."""
        assert self._process is not None
        criteria.ends(self._process)
        self._process.send_signal(how)
        code = self._process.wait(30.0)
        self._process = None
        return code

    def close(self) -> None:
        """Ends it whatever it does."""
        if self._process is not None:
            criteria.ends(self._process)
            self._process.kill()
            self._process.wait(30.0)
            self._process = None

    @property
    def url(self) -> str:
        """Scheme and address."""
        return f"http{'' if self.context is None else 's'}://127.0.0.1:{self.port}"

    def get(self, path: str = "/metrics") -> str:
        """The body of a page; raises ``HTTPError`` for a status of 400 and more."""
        with self._open(path) as reply:
            return str(reply.read().decode())

    def status(self, path: str) -> int:
        """The status of a page, 0 where nothing answers."""
        try:
            with self._open(path) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def _open(self, path: str) -> Any:  # noqa: ANN401, urllib's response
        request = urllib.request.Request(self.url + path, headers=self.headers)  # noqa: S310 - our own
        return urllib.request.urlopen(request, timeout=REQUEST_SECONDS, context=self.context)  # noqa: S310 - our own

    def reason(self) -> str:
        """Why it is not ready, in its own words."""
        try:
            return self.get("/readyz")
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()

    def series(self, path: str = "/metrics") -> Series:
        """What a scrape shows; fails when a series is there twice."""
        samples = [sample for family in text_string_to_metric_families(self.get(path)) for sample in family.samples]
        series = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
        assert len(series) == len(samples), "a series is there twice"
        return series

    def value(self, metric: str, /, **labels: str) -> float | None:
        """The value of the only series of that name with those labels among its own, None where there is none."""
        found = [value for (name, has), value in self.series().items() if name == metric and has >= labels.items()]
        assert len(found) <= 1, f"{metric} {labels} is {len(found)} series"
        return found[0] if found else None

    def wait_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits for a condition; fails with the end of the log when it does not come true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not after {seconds} s: {what}; {self.log.read_text(errors='replace')[-3000:]}"
            time.sleep(0.05)

    def wait_until_ready(self, seconds: float = 30.0) -> None:
        """Waits until it has read back."""
        self.wait_until(lambda: self.status("/readyz") == 200, seconds, "ready")

    def lines(self, level: str) -> list[str]:
        """The messages it has logged at a level."""
        messages = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if entry["level"] == level:
                    messages.append(str(entry["message"]))
        return messages
