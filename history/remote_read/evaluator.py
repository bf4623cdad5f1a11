"""PromQL by an existing engine: a Prometheus of our own, one for each tenant that asks, which reads the tables through our remote_read.

It scrapes nothing, keeps nothing, and listens on a loopback port under a path that nobody else can know: a secret of this run, which is on
no command line but in a file of this user. It ends with us, and when nobody has asked for a while.
Source of the switches and settings: Prometheus' documentation ("remote_read"), and kingpin's files of arguments (``@FILE``).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import socket
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from virtflow.history.remote_read.tenants import OWN_SCHEME, Tenants
from virtflow.runtime.own_metrics import OwnMetrics
from virtflow.runtime.settings import History
from virtflow.schemas.errors import InputError

AT_ONCE: Final = 8
"""Evaluators that run at a time, about 60 MB each; the one that was asked longest ago makes room."""
IDLE_SECONDS: Final = 600.0
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
LOG_BYTES: Final = 4_000
QUERIES_AT_ONCE: Final = 4
"""Of one evaluator; others wait."""

_LOG: Final = logging.getLogger("virtflow.history.remote_read.evaluator")


class EvaluatorError(InputError):
    """There is no engine, or it did not start; the text says what to do."""


class Evaluator:
    """One Prometheus, as long as it is used."""

    def __init__(self, program: str, folder: Path, config: dict[str, Any], settings: History) -> None:
        """Nothing runs before ``start``; ``folder`` is its own, ``config`` its configuration, and ``settings`` limit its queries."""
        self._program = program
        self._folder = folder
        self._prefix = secrets.token_hex(16)
        self._config = config
        self._seconds = settings.query_seconds
        self._samples = settings.serve_samples
        self._process: asyncio.subprocess.Process | None = None
        self.asked = time.monotonic()
        self.url = ""

    @property
    def runs(self) -> bool:
        """Whether it can be asked."""
        return self._process is not None and self._process.returncode is None

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Starts it and returns when it answers; raises ``EvaluatorError`` with the end of its log where it does not."""
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/{self._prefix}"
        self._write(port)
        log = self._folder / "log"
        with log.open("wb") as out:
            self._process = await asyncio.create_subprocess_exec(
                *_dies_with_us(),
                self._program,
                f"@{self._folder / 'switches'}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._folder,
            )
        until = time.monotonic() + START_SECONDS
        while not await self._ready(session):
            if not self.runs or time.monotonic() > until:
                await self.stop()
                raise EvaluatorError(f"{self._program} did not start: {log.read_text(errors='replace')[-LOG_BYTES:]}")
            await asyncio.sleep(0.05)

    def _write(self, port: int) -> None:
        (self._folder / "prometheus.yml").write_text(json.dumps(self._config))  # JSON is YAML
        switches = [
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            "--storage.tsdb.retention.time=2h",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--web.route-prefix=/{self._prefix}",
            f"--query.timeout={round(self._seconds * 1000)}ms",
            f"--query.max-samples={self._samples}",
            f"--query.max-concurrency={QUERIES_AT_ONCE}",
            "--log.level=warn",
        ]
        (self._folder / "switches").write_text("\n".join(switches) + "\n")

    async def _ready(self, session: aiohttp.ClientSession) -> bool:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get(f"{self.url}/-/ready", timeout=aiohttp.ClientTimeout(1.0)) as reply:
                return reply.status == 200  # noqa: PLR2004, HTTP's own
        return False

    async def stop(self) -> None:
        """Ends it, and removes what it wrote."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class Evaluators:
    """The evaluators of all tenants. Belongs to the event loop."""

    def __init__(self, settings: History, tenants: Tenants, metrics: OwnMetrics) -> None:
        """Starts nothing; queries that no engine answers are counted in ``metrics``: the others read, and are counted there."""
        self._settings = settings
        self._tenants = tenants
        self._failed = metrics.counter("virtflow_history_serve_queries_total").labels(outcome="failed")
        self._read_url = ""
        self._running: OrderedDict[str, Evaluator] = OrderedDict()
        self._starting = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    def reading(self, address: str) -> None:
        """Says where our remote_read is: ``ADDRESS:PORT`` of a server without TLS that only the evaluators know how to ask."""
        self._read_url = f"http://{address}/api/v1/read"

    @asynccontextmanager
    async def asked(self, tenant: str, path: str, query: str, body: bytes | None) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer of the HTTP API, whose body is still to be read; raises ``EvaluatorError`` where no engine can be had."""
        try:
            evaluator = await self._evaluator(tenant)
        except EvaluatorError:
            self._failed.inc()
            raise
        session = self._client()
        url = f"{evaluator.url}/api/v1/{path}" + (f"?{query}" if query else "")
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
        timeout = aiohttp.ClientTimeout(self._settings.query_seconds + STOP_SECONDS)
        try:
            reply = await session.request("GET" if body is None else "POST", url, data=body, headers=headers, timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise EvaluatorError(f"the evaluator did not answer: {type(error).__name__}: {error}") from error
        async with reply:
            yield reply

    async def tidy(self) -> None:
        """Ends those that nobody has asked for a while."""
        for tenant, evaluator in list(self._running.items()):
            if time.monotonic() - evaluator.asked > IDLE_SECONDS or not evaluator.runs:
                del self._running[tenant]
                await evaluator.stop()

    async def close(self) -> None:
        """Ends all."""
        running = list(self._running.values())
        self._running.clear()
        await asyncio.gather(*(evaluator.stop() for evaluator in running))
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    async def _evaluator(self, tenant: str) -> Evaluator:
        async with self._starting:
            found = self._running.get(tenant)
            if found is None or not found.runs:
                found = await self._started(tenant)
            self._running.move_to_end(tenant)
            found.asked = time.monotonic()
            return found

    async def _started(self, tenant: str) -> Evaluator:
        program = shutil.which(self._settings.serve_prometheus) if self._settings.serve_prometheus else None
        if program is None:
            raise EvaluatorError(
                "no PromQL engine here: install a Prometheus and name its program with history.serve_prometheus (--prometheus)"
            )
        if len(self._running) >= AT_ONCE:
            _, oldest = self._running.popitem(last=False)
            await oldest.stop()
        folder = Path(tempfile.mkdtemp(prefix="virtflow-promql-"))
        evaluator = Evaluator(program, folder, self._config(tenant), self._settings)
        await evaluator.start(self._client())
        _LOG.info("PromQL is evaluated by %s%s", program, f" for project {tenant}" if tenant else "")
        self._running[tenant] = evaluator
        return evaluator

    def _config(self, tenant: str) -> dict[str, Any]:
        read = {
            "url": self._read_url,
            "read_recent": True,
            "remote_timeout": f"{round(self._settings.query_seconds * 1000)}ms",
            "authorization": {"type": OWN_SCHEME, "credentials": self._tenants.own(tenant)},
        }
        return {"global": {"scrape_interval": "1m"}, "remote_read": [read]}


def _dies_with_us() -> tuple[str, ...]:
    """What starts a program so that the kernel ends it where we are killed (``setpriv`` of util-linux); nothing where that is missing."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL") if setpriv else ()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
