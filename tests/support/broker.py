"""A real Kafka broker of a test's own: started on ports that the system hands out, stopped, killed, paused and started again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support.started import Started

KAFKA = Path(__file__).resolve().parents[2] / "scripts" / "kafka"
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Whatever ends the test run, even SIGKILL, ends the broker."""
START_SECONDS = 60.0
STOP_SECONDS = 30.0
LOG_TAIL_CHARACTERS = 3000


class BrokerError(AssertionError):
    """The broker did not do what was asked of it; the text holds the end of its log."""


PORTS = range(20000, 32000)
"""Below those that the kernel gives to outgoing connections, which may take a port before its server does."""
_claims: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Return so many different loopback ports that nobody listens on.

    No other test process on the machine gets them before this one ends: each is claimed by an abstract socket of its name.
    """
    return [_claimed_port() for _ in range(count)]


def _claimed_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0virtflow-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
    raise BrokerError("no port is free")


class Broker(Started):
    """One embedded broker: its storage and ports stay the same over any number of stops, kills and starts.

    ``with Broker(folder) as broker`` starts it and ends it whatever state it is in. ``address`` is what clients call
    ``bootstrap.servers``; ``host`` may be another of this machine's addresses, for clients in other network namespaces.
    It ends with the thread that started it, so that nothing is left behind: start it in the test's own.
    """

    def __init__(self, folder: Path, *, host: str = "127.0.0.1") -> None:
        """Take the ports; nothing runs before ``start``."""
        self.folder = folder
        self.host = host
        self.port, self._controller_port = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def address(self) -> str:
        """Return HOST:PORT for clients."""
        return f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it has been started and not ended by us."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Return the process id of the running broker; fails when it is stopped."""
        return self._running().pid

    def start(self) -> None:
        """Start the broker and return when it answers; raises BrokerError after a minute."""
        if self._process is not None:
            raise BrokerError(f"the broker at {self.address} runs already")
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [*DIES_WITH_US, str(KAFKA), "run", "--dir", str(self.folder / "storage"), "--host", self.host]
        command += ["--port", str(self.port), "--controller-port", str(self._controller_port)]
        if more := self._properties():
            file = self.folder / "more.properties"
            file.write_text(more)
            command += ["--properties", str(file)]
        with self._log.open("ab") as log:
            env = {**os.environ, **self._environment()}
            self._process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.wait_until_ready()

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until the broker answers, groups included; raises BrokerError when it ended or takes longer."""
        deadline = time.monotonic() + seconds
        while not self._listens() or not self._answers():
            code = self._running().poll()
            if code is not None:
                self._process = None
                raise BrokerError(f"the broker at {self.address} ended with {code}: {self._tail()}")
            if time.monotonic() > deadline:
                raise BrokerError(f"the broker at {self.address} does not answer after {seconds} s: {self._tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as an operator does (TERM) and wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with -9, in the middle of whatever it does, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether it has ended by itself, as it does where it can't write; ``start`` then starts it again."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        return self._process is None

    def restart(self) -> None:
        """Start it again on the same ports and data, stopping it first if it runs."""
        if self._process is not None:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: its connections stay open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let a paused broker go on."""
        self._running().send_signal(signal.SIGCONT)
        self._paused = False

    def close(self) -> None:
        """End it, paused or not."""
        if self._process is not None:
            self.kill()

    def _properties(self) -> str:
        """Further settings of the broker; a kind of broker of its own has some."""
        return ""

    def _environment(self) -> dict[str, str]:
        """Further variables of its environment."""
        return {}

    @property
    def _log(self) -> Path:
        return self.folder / "broker.log"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BrokerError(f"the broker at {self.address} is not running")
        return self._process

    def _end(self, how: signal.Signals) -> None:
        process = self._running()
        if self._paused:
            self.resume()
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BrokerError(f"the broker at {self.address} is still there {STOP_SECONDS} s after {how.name}: {self._tail()}") from error
        self._process = None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1.0):
            return True
        return False

    def _answers(self) -> bool:
        settings: dict[str, str | int | float | bool] = {"bootstrap.servers": self.address, "log_level": 0}
        with contextlib.suppress(KafkaException):
            AdminClient(settings).list_topics(timeout=2.0)
            # The coordinator of groups starts when it is first asked for: without this the first test that uses one would meet it loading.
            group = Consumer({**settings, "group.id": "readiness"})
            try:
                group.committed([TopicPartition("readiness", 0)], timeout=2.0)
            finally:
                group.close()
            return True
        return False

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
