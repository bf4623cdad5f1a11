"""A guest's agent as a program of the test: honest, or hostile in one of many ways, switched while it runs, every request counted.

It speaks through a relay in a guest of the lab (``GuestSpec(agent="relay")``), so libvirt sees a real agent's channel. What is asked and
answered is QEMU's guest agent protocol: a JSON object a line (source: QEMU's "Guest Agent Protocol Reference").
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.lab_guest import channel_path, console_path
from tests.support.lab_process import LabError, await_true
from tests.support.lab_shell import GuestShell

SYNCHRONISE: Final = frozenset({"guest-sync", "guest-sync-delimited"})
"""What libvirt says before a command, to know that the agent is there and what it reads is not an answer to somebody else."""
HEARD_SECONDS: Final = 60.0
EVIL: Final = 'host"\n\\\u202e\x1b[31m\u0085\u2028"} 1\nvm_state{uuid="forged'
OPEN, CLOSED = "RELAY-OPEN", "RELAY-CLOSED"
"""What the guest says on its console when the agent's channel has been opened or closed."""
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it came (Unix seconds), its command, and what came with it."""

    time: float
    command: str
    arguments: dict[str, Any]


Speech = Callable[[Asked], Iterable[bytes | float]]
"""What an agent says to a request: bytes, and pauses in seconds between them."""


def returned(value: object) -> bytes:
    """A successful answer as a line."""
    return json.dumps({"return": value}).encode() + b"\n"


def refused(asked: Asked, kind: str = "CommandNotFound") -> bytes:
    """An error as a line."""
    return json.dumps({"error": {"class": kind, "desc": f"The command {asked.command} has not been found"}}).encode() + b"\n"


def synchronised(asked: Asked) -> bytes:
    """The right answer to what comes before a command."""
    mark = b"\xff" if asked.command == "guest-sync-delimited" else b""
    return mark + returned(asked.arguments.get("id"))


def filesystem(mountpoint: str, total: object, used: object, fstype: str = "ext4") -> dict[str, Any]:
    """A filesystem as the agent tells it."""
    return {"name": "vda1", "mountpoint": mountpoint, "type": fstype, "total-bytes": total, "used-bytes": used, "disk": []}


def interface(name: str, *addresses: str) -> dict[str, Any]:
    """A network interface as the agent tells it, with IPv4 addresses."""
    listed = [{"ip-address-type": "ipv4", "ip-address": address, "prefix": 24} for address in addresses]
    return {"name": name, "hardware-address": "52:54:00:00:00:01", "ip-addresses": listed}


def vcpu(number: object) -> dict[str, Any]:
    """A CPU that is online, as the agent tells it."""
    return {"logical-id": number, "online": True, "can-offline": True}


TRUTH: Final[dict[str, Any]] = {
    "guest-ping": {},
    "guest-get-host-name": {"host-name": "honest"},
    "guest-get-osinfo": {"id": "lab", "name": "Lab", "pretty-name": "Lab 1", "version": "1", "version-id": "1", "machine": "x86_64"},
    "guest-get-fsinfo": [filesystem("/", 64 * MIB, 16 * MIB)],
    "guest-network-get-interfaces": [interface("eth0", "192.0.2.7")],
    "guest-get-vcpus": [vcpu(0), vcpu(1)],
    "guest-get-timezone": {"offset": 0, "zone": "UTC"},
    "guest-get-users": [],
    "guest-get-disks": [],
    "guest-get-load": {"load1m": 0.5, "load5m": 0.25, "load15m": 0.125},
}


def told(**changed: object) -> Speech:
    """An agent that answers, with other values for some commands; ``_`` stands for ``-`` in their names."""
    answers = TRUTH | {name.replace("_", "-"): value for name, value in changed.items()}

    def speak(asked: Asked) -> Iterator[bytes]:
        if asked.command in SYNCHRONISE:
            yield synchronised(asked)
        else:
            yield returned(answers[asked.command]) if asked.command in answers else refused(asked)

    return speak


def silent(asked: Asked) -> Iterator[bytes]:
    """Reads, and never answers."""
    del asked
    yield from ()


def slow(seconds: float) -> Speech:
    """Answers every command so late; it is there at once."""

    def speak(asked: Asked) -> Iterator[bytes | float]:
        if asked.command not in SYNCHRONISE:
            yield seconds
        yield from HONEST(asked)

    return speak


def broken(asked: Asked) -> Iterator[bytes]:
    """What it says is no JSON."""
    yield synchronised(asked) if asked.command in SYNCHRONISE else b'{"return": {"host-name": \n'


def endless(asked: Asked) -> Iterator[bytes]:
    """An answer that does not end."""
    if asked.command in SYNCHRONISE:
        yield synchronised(asked)
        return
    yield b'{"return": {"host-name": "'
    while True:
        yield b"x" * 65_536


def another(asked: Asked) -> Iterator[bytes | float]:
    """Answers to requests that nobody made come before the one that was asked for."""
    if asked.command in SYNCHRONISE:
        yield returned(int(asked.arguments.get("id") or 0) + 1)
        yield synchronised(asked)
        return
    yield returned(TRUTH["guest-get-timezone"])
    yield from HONEST(asked)


def outdated(asked: Asked) -> Iterator[bytes | float]:
    """An agent of a version that knows no command but these."""
    yield from HONEST(asked) if asked.command in SYNCHRONISE | {"guest-ping"} else [refused(asked)]


HONEST: Final = told()
HUGE_NAME: Final = told(guest_get_host_name={"host-name": EVIL * (3 * MIB // len(EVIL))})
SOME: Final = told(
    guest_network_get_interfaces=[interface(f"eth{number}", f"10.0.{number}.1") for number in range(250)],
    guest_get_fsinfo=[filesystem(f"/{number}", MIB, 0) for number in range(250)],
)
"""More than is shown, less than libvirt takes."""
MANY: Final = told(
    guest_network_get_interfaces=[interface(f"eth{number}", f"10.{number >> 8}.{number & 255}.1") for number in range(10_000)],
    guest_get_fsinfo=[filesystem(f"/{number}", MIB, 0) for number in range(1_000)],
)
UNTRUE_NUMBERS: Final = told(
    guest_get_fsinfo=[filesystem("/negative", -5, -7), filesystem("/large", 2**63, 2**63), filesystem("/full", MIB, 2 * MIB)],
    guest_get_load={"load1m": -1.0, "load5m": 1e300, "load15m": 0.5},
)
WRONG_TYPES: Final = told(
    guest_get_host_name={"host-name": 17},
    guest_get_osinfo=["lab"],
    guest_get_fsinfo={"mountpoint": "/"},
    guest_network_get_interfaces="eth0",
    guest_get_vcpus=7,
)
"""JSON of another type than the protocol's in each answer as a whole."""


class AgentProgram:
    """Speaks as ``speech`` says, which may be changed at any time; connected, for libvirt as for itself, between ``connect`` and ``disconnect``."""

    def __init__(self, uuid: str, disks: Path, speech: Speech = HONEST) -> None:
        """Connect to the relay in a guest; the guest may still be booting."""
        self.speech = speech
        self.requests: list[Asked] = []
        self._uuid = uuid
        self._disks = disks
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self.connect()

    def connect(self) -> None:
        """The agent starts: its end of the channel is opened in the guest."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(channel_path(self._uuid, self._disks, "lab.relay")))
            self._socket.sendall(b"here\n")
        except OSError as error:
            self._socket.close()
            raise LabError(f"no relay in {self._uuid}: {error}") from error
        self._thread = threading.Thread(target=self._run, args=(self._socket,), daemon=True)
        self._thread.start()

    def disconnect(self) -> None:
        """The agent ends: the guest closes the channel."""
        if self._socket is None or self._thread is None:
            return
        connected, self._socket = self._socket, None
        closed = self._said(CLOSED)
        try:
            connected.shutdown(socket.SHUT_RDWR)
        except OSError:  # the guest is gone already
            connected.close()
        self._thread.join(HEARD_SECONDS)
        connected.close()
        with GuestShell(self._uuid, self._disks) as shell:

            def is_closed() -> bool:
                shell.run("killall cat; sleep 0.1")  # one may be stuck, at any time, in what libvirt does not read
                return self._said(CLOSED) > closed

            await_true(is_closed, HEARD_SECONDS, "the guest closes the agent's channel")

    def restart(self, speech: Speech) -> None:
        """The agent ends, and starts again with another speech."""
        self.disconnect()
        self.speech = speech
        opened = self._said(OPEN)
        self.connect()
        await_true(lambda: self._said(OPEN) > opened, HEARD_SECONDS, "the guest opens the agent's channel")

    def _said(self, words: str) -> int:
        """How often the guest has said this on its console."""
        return console_path(self._uuid, self._disks).read_text(errors="replace").count(words)

    def _run(self, connected: socket.socket) -> None:
        try:
            for asked in _requests(connected):
                self.requests.append(asked)
                speech = self.speech
                for said in speech(asked):
                    if not isinstance(said, bytes):
                        self._pause(said, speech)
                        continue
                    connected.sendall(said)
                    if self.speech is not speech:
                        break
        except OSError:  # disconnected
            return

    def _pause(self, seconds: float, speech: Speech) -> None:
        """Be silent for so long, or until another speech is chosen or the agent ends."""
        end = time.monotonic() + seconds
        while self._socket is not None and self.speech is speech and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def commands(self, since: float = 0.0) -> Counter[str]:
        """How often each command was asked after ``since`` (Unix seconds); what comes before a command is none."""
        return Counter(asked.command for asked in list(self.requests) if asked.time > since and asked.command not in SYNCHRONISE)

    def close(self) -> None:
        """End it; the guest may be gone."""
        connected, self._socket = self._socket, None
        if connected is not None and self._thread is not None:
            connected.shutdown(socket.SHUT_RDWR)
            self._thread.join(HEARD_SECONDS)
            connected.close()

    def __enter__(self) -> Self:
        """Nothing more: it speaks since it was made."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it."""
        self.close()


def _requests(connected: socket.socket) -> Iterator[Asked]:
    """The requests as they come, until the other end is gone."""
    waiting = b""
    while received := connected.recv(65_536):
        *lines, waiting = (waiting + received).replace(b"\xff", b"").split(b"\n")
        for line in lines:
            asked = json.loads(line)
            yield Asked(time.time(), asked["execute"], asked.get("arguments") or {})
