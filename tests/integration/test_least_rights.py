"""The whole pipeline with exactly the rights that ``virtflow topics acls`` gives, over TLS with passwords."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.command import PROGRAM, environment, virtflow
from tests.support.processors import eventually
from tests.support.secure_broker import SecureBroker
from tests.support.started import Started
from virtflow.runtime.kafka.acls import Acl, Part, acls
from virtflow.runtime.settings import Settings

SECONDS = 120.0
COMMANDS: dict[Part, tuple[str, ...]] = {
    Part.PRODUCER: ("simulate", "--nodes", "2", "--vms", "2", "--interval", "0.5", "--migrations", "1"),
    Part.PROCESSORS: ("processors",),
    Part.EXPORTER: ("exporter",),
    Part.HISTORY: ("history", "write"),
}


class Service(Started):
    """One part as a process, as its own user."""

    def __init__(self, part: Part, broker: SecureBroker, folder: Path) -> None:
        """Nothing runs before ``start``."""
        self.part = part
        self.log = folder / f"{part}.log"
        (self.port,) = free_ports(1)
        address = f"127.0.0.1:{self.port}"
        listen = {f"VIRTFLOW_{section}_LISTEN": address for section in ("PROCESSORS", "EXPORTER", "HISTORY")}
        own = {"VIRTFLOW_HISTORY_PATH": str(folder / "history"), "VIRTFLOW_HISTORY_COMMIT_SECONDS": "0.5"}
        self._env = environment(broker.as_user(str(part), folder) | listen | own)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([*DIES_WITH_US, str(PROGRAM), *COMMANDS[self.part]], env=self._env, stderr=log, stdout=log)

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
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
                return str(reply.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()
        except OSError:
            return ""

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


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """A broker with a user for each part, each with exactly the rights that the command gives."""
    folder = tmp_path_factory.mktemp("secured")
    with SecureBroker(folder, [str(part) for part in Part]) as broker:
        admin = broker.as_user("admin", folder)
        for part in Part:
            given = virtflow("topics", "acls", "--for", part, "--principal", f"User:{part}", "--apply", env=admin)
            assert given.returncode == 0, given.stderr
        made = virtflow("topics", "create", env=broker.as_user("topics", folder))
        assert made.returncode == 0, made.stdout + made.stderr
        yield broker


def test_the_command_shows_what_the_table_says(secured: SecureBroker) -> None:
    """The rights that the broker has are the table's: each user its own, and nobody any other."""
    shown = virtflow("topics", "acls", "--json")
    told = {(one["for"], one["resource"], one["name"], one["operation"]) for one in json.loads(shown.stdout)}
    assert told == {(acl.part, acl.resource, acl.name, acl.operation) for acl in acls(Settings(), *Part)}
    assert secured.rights() == {(f"User:{part}", resource, name, operation) for part, resource, name, operation in told}


def test_the_pipeline_runs_with_them(secured: SecureBroker, tmp_path: Path) -> None:
    """From the producer's first round to rows in the history, and ``check`` finds nothing wrong for any part."""
    with contextlib.ExitStack() as stack:
        running = {part: stack.enter_context(Service(part, secured, tmp_path)) for part in COMMANDS}
        exporter, history = running[Part.EXPORTER], running[Part.HISTORY]
        eventually("VMs at /metrics", lambda: exporter.counted("virtflow_exporter_vms") >= 5, SECONDS)
        eventually("nodes at /metrics", lambda: exporter.counted("virtflow_exporter_nodes") >= 2, SECONDS)
        eventually("rows in the history", lambda: history.counted("virtflow_history_rows_total") >= 5, SECONDS)
        tap = virtflow("tap", "metrics", "--count", "3", "--json", env=secured.as_user("tap", tmp_path))
        assert len(tap.stdout.splitlines()) == 3, tap.stderr
        assert {part: service.complaint for part, service in running.items()} == dict.fromkeys(COMMANDS, "")
        for part in (Part.PRODUCER, Part.PROCESSORS, Part.EXPORTER, Part.HISTORY):
            done = virtflow("check", "--for", part, "--json", env=secured.as_user(part, tmp_path))
            wrong = [one for one in json.loads(done.stdout)["findings"] if not one["ok"] and one["thing"] in {"broker", "topic", "group"}]
            assert wrong == []


@pytest.mark.parametrize("acl", list(acls(Settings(), *COMMANDS)), ids=lambda acl: f"{acl.part}-{acl.operation}-{acl.name}")
def test_check_names_the_right_that_is_missing(secured: SecureBroker, tmp_path: Path, acl: Acl) -> None:
    """Each right of each service is taken away in turn: one finding says which, and how it is given."""
    who = f"User:{acl.part}"
    secured.revoke(who, acl.resource, acl.name, acl.operation)
    try:
        done = virtflow("check", "--for", acl.part, "--json", env=secured.as_user(acl.part, tmp_path))
    finally:
        given = virtflow("topics", "acls", "--for", acl.part, "--principal", who, "--apply", env=secured.as_user("admin", tmp_path))
        assert given.returncode == 0, given.stderr
    (found,) = [one for one in json.loads(done.stdout)["findings"] if not one["ok"] and one["thing"] in {"broker", "topic", "group"}]
    assert found["value"] == acl.name
    assert acl.operation in found["detail"] + found["fix"] or "may not see it" in found["detail"]
    assert "virtflow topics acls" in found["fix"]
