"""Parts as processes on a secured broker, each as a user of its own with exactly the rights that ``virtflow topics acls`` gives."""

from __future__ import annotations

import contextlib
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment, virtflow
from tests.support.secure_broker import SecureBroker
from tests.support.started import Started
from virtflow.runtime.kafka.acls import Part

COMMANDS: dict[Part, tuple[str, ...]] = {
    Part.PRODUCER: ("simulate", "--nodes", "2", "--vms", "2", "--interval", "0.5", "--migrations", "1"),
    Part.PROCESSORS: ("processors",),
    Part.EXPORTER: ("exporter",),
    Part.HISTORY: ("history", "write"),
}


class Service(Started):
    """One part as a process, as its own user."""

    def __init__(self, part: Part, broker: SecureBroker, folder: Path, command: Sequence[str] = (), **settings: str) -> None:
        """Nothing runs before ``start``. ``settings`` are variables of its own, without their prefix, in lower case; ``command`` is the part's."""
        self.part = part
        self.log = folder / f"{'-'.join(command) or part}.log"
        (self.port,) = free_ports(1)
        self.context: ssl.SSLContext | None = None
        """How its clients speak TLS with it, where it does."""
        address = f"127.0.0.1:{self.port}"
        listen = {f"VIRTFLOW_{section}_LISTEN": address for section in ("PROCESSORS", "EXPORTER", "HISTORY")}
        listen["VIRTFLOW_HISTORY_SERVE_LISTEN"] = address
        own = {"VIRTFLOW_HISTORY_PATH": str(folder / "history"), "VIRTFLOW_HISTORY_COMMIT_SECONDS": "0.5"}
        given = {f"VIRTFLOW_{key.upper()}": value for key, value in settings.items()}
        self._env = environment(broker.as_user(str(part), folder) | listen | own | given)
        self._command = command or COMMANDS[part]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([*DIES_WITH_US, str(PROGRAM), *self._command], env=self._env, stderr=log, stdout=log)

    def close(self) -> None:
        """Ends it as an operator does, at last by force."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self._process.kill()
            self._process.wait()
            self._process = None

    def page(self, path: str) -> str:
        """A page, "" while it is not served."""
        return self._answer(path)[1]

    def status(self, path: str) -> int:
        """The status of a page, 0 while nobody answers."""
        return self._answer(path)[0]

    def _answer(self, path: str) -> tuple[int, str]:
        url = f"http{'s' if self.context else ''}://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10, context=self.context) as reply:  # noqa: S310, our own
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def counted(self, metric: str) -> float:
        """The sum of a metric's series."""
        lines = [line for line in self.page("/metrics").splitlines() if line.startswith((f"{metric}{{", f"{metric} "))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    @property
    def complaint(self) -> str:
        """What it says of a right that it lacks, in its log or at /readyz; "" where it says nothing."""
        lines = [*self.log.read_text(errors="replace").splitlines(), self.page("/readyz")]
        words = ("uthoriz", "may not", "AUTHORIZATION")
        return next((line for line in lines if any(word in line for word in words)), "")


@contextmanager
def least_rights(folder: Path) -> Iterator[SecureBroker]:
    """A broker with all topics and a user for each part, each with exactly the rights that the command gives."""
    with SecureBroker(folder, [str(part) for part in Part]) as broker:
        admin = broker.as_user("admin", folder)
        for part in Part:
            given = virtflow("topics", "acls", "--for", part, "--principal", f"User:{part}", "--apply", env=admin)
            assert given.returncode == 0, given.stderr
        made = virtflow("topics", "create", env=broker.as_user("topics", folder))
        assert made.returncode == 0, made.stdout + made.stderr
        yield broker
