"""A network namespace behind a link that loses, delays or cuts packets, as the kernel's netem does, on kernels without it too.

The link is two TUN devices, one on each side, and a process between them that carries the packets: it drops some, holds each back for a
while, or carries none. A second, good cable is for the test's own eyes: the pages of what runs behind the link.

    with BadNetwork(folder) as network:
        broker = Broker(folder, host=network.near)          # here
        network.spawn([...], log)                           # there; it reaches the broker over the link
        network.set(loss=0.05, delay=0.3)
        network.cut() ... network.mend()
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.lab_network import LABS, Network
from tests.support.lab_process import Namespaces, run
from tests.support.started import Started

TUNSETIFF: Final = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x1, 0x1000
PACKET_BYTES: Final = 65_536
BATCH: Final = 64
QUEUE: Final = 10_000
"""Packets that are on their way at most; a longer queue loses what comes, as netem's does."""
ROOT: Final = Path(__file__).resolve().parents[2]


def open_tun(name: str) -> int:
    """A TUN device of that name; the descriptor that its packets go through."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


class BadNetwork(Started):
    """One namespace behind one bad link."""

    def __init__(self, folder: Path) -> None:
        """Nothing is there before ``start``."""
        self._folder = folder
        self._network: Network | None = None
        self._namespaces: Namespaces | None = None
        self._link: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Makes the namespace, the cable and the link, which is good at first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._network = network = Network()
        number = network.index
        self.near, self.far = f"10.{214 + number // LABS}.{number}.1", f"10.{214 + number // LABS}.{number}.2"
        """The addresses of the link's ends: here, and in the namespace."""
        self._namespaces = Namespaces(["sh", "-c", "ip link set lo up; echo ready; exec sleep infinity"], self._folder / "namespaces.log")
        self.pages = network.connect(self._namespaces.first_pid)
        """The namespace's address by the good cable."""
        names = f"vfbad{number}a", f"vfbad{number}b"
        ends = [open_tun(name) for name in names]
        run(["ip", "link", "set", names[1], "netns", str(self._namespaces.first_pid)])
        run(["ip", "addr", "add", self.near, "peer", self.far, "dev", names[0]])
        run(["ip", "link", "set", names[0], "mtu", "1400", "up"])
        self._namespaces.run("ip", "addr", "add", self.far, "peer", self.near, "dev", names[1])
        self._namespaces.run("ip", "link", "set", names[1], "mtu", "1400", "up")
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.support.bad_network", *map(str, ends)]
        with (self._folder / "link.log").open("ab") as log:
            self._link = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, pass_fds=ends, cwd=ROOT)
        for end in ends:
            os.close(end)

    def set(self, *, loss: float = 0.0, delay: float = 0.0) -> None:
        """Each way loses a share of the packets, and takes ``delay`` seconds more."""
        assert self._link is not None
        assert self._link.stdin is not None
        self._link.stdin.write(f"{loss} {delay}\n".encode())
        self._link.stdin.flush()

    def cut(self) -> None:
        """Nothing comes through, and nobody is told."""
        self.set(loss=1.0)

    def mend(self) -> None:
        """As good as any other."""
        self.set()

    @property
    def inside(self) -> list[str]:
        """What runs a command in the namespace, with this machine's own processes in sight."""
        assert self._namespaces is not None
        return ["nsenter", "-t", str(self._namespaces.first_pid), "-n", "--"]

    def close(self) -> None:
        """Ends the link and the namespace."""
        if self._link is not None:
            self._link.kill()
            self._link.wait(10.0)
            assert self._link.stdin is not None
            self._link.stdin.close()
        if self._namespaces is not None:
            self._namespaces.close()
        if self._network is not None:
            self._network.close()


class Link:
    """Carries packets between two TUN devices."""

    def __init__(self, ends: Sequence[int]) -> None:
        """A good link."""
        self._ends = ends
        self._loss = self._delay = 0.0
        self._dice = random.Random(23)  # noqa: S311, packets, not secrets
        self._way: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def run(self) -> None:
        """Until standard input ends: each line of it is a share of loss and a delay in seconds."""
        selector = selectors.DefaultSelector()
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        for place, end in enumerate(self._ends):
            selector.register(end, selectors.EVENT_READ, place)
        while True:
            due = max(0.0, self._way[0][0] - time.monotonic()) if self._way else None
            for key, _ in selector.select(due):
                if key.data is not None:
                    self._take(key.data)
                elif not self._told():
                    return
            self._carry()

    def _told(self) -> bool:
        text = os.read(sys.stdin.fileno(), 4096).decode()
        if text:
            loss, delay = text.splitlines()[-1].split()
            self._loss, self._delay = float(loss), float(delay)
        return bool(text)

    def _take(self, place: int) -> None:
        for _ in range(BATCH):
            try:
                packet = os.read(self._ends[place], PACKET_BYTES)
            except BlockingIOError:
                return
            if self._dice.random() >= self._loss and len(self._way) < QUEUE:
                self._count += 1
                heapq.heappush(self._way, (time.monotonic() + self._delay, self._count, 1 - place, packet))

    def _carry(self) -> None:
        now = time.monotonic()
        while self._way and self._way[0][0] <= now:
            _, _, place, packet = heapq.heappop(self._way)
            try:
                os.write(self._ends[place], packet)
            except OSError:  # the other side is down for a moment, or has no room: the packet is lost, as on any link
                continue


if __name__ == "__main__":
    Link([int(word) for word in sys.argv[1:]]).run()
