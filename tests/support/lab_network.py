"""A network for one lab that no other lab on the machine has: its number, bridge and subnet."""

from __future__ import annotations

import socket
import subprocess

from tests.support.lab_process import LabError, run

LABS = 64
"""How many labs one machine can hold at a time."""


class Network:
    """A bridge with a subnet of its own, and one cable to each node."""

    def __init__(self) -> None:
        """Claim the lowest free number; LabError when all are taken."""
        self._claim, self.index = _claim()
        self.bridge = f"vflab{self.index}"
        self._nodes = 0
        # The number was free, so a bridge of this name is the remnant of a run that was killed.
        _delete(self.bridge)
        run(["ip", "link", "add", self.bridge, "type", "bridge"])
        run(["ip", "addr", "add", f"{self.address(254)}/24", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])

    def address(self, node: int) -> str:
        """IPv4 address of a node; 254 is the machine's own."""
        return f"10.213.{self.index}.{node}"

    def connect(self, pid: int) -> str:
        """Lay a cable from the bridge into the network namespace of ``pid``, as eth0 there; the node's address."""
        self._nodes += 1
        outer = f"{self.bridge}n{self._nodes}"
        _delete(outer)
        run(["ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", str(pid)])
        run(["ip", "link", "set", outer, "master", self.bridge, "up"])
        inside = ["nsenter", "-t", str(pid), "-n", "ip"]
        run([*inside, "addr", "add", f"{self.address(self._nodes)}/24", "dev", "eth0"])
        run([*inside, "link", "set", "eth0", "up"])
        return self.address(self._nodes)

    def close(self) -> None:
        """Remove cables and bridge, and give the number back."""
        for node in range(1, self._nodes + 1):
            _delete(f"{self.bridge}n{node}")
        _delete(self.bridge)
        self._claim.close()


def _claim() -> tuple[socket.socket, int]:
    """Bind the abstract socket of the lowest free lab number: shared by all who share the network, and freed by the kernel."""
    for index in range(LABS):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0virtflow-lab-{index}")
        except OSError:
            claim.close()
            continue
        return claim, index
    raise LabError(f"all {LABS} lab numbers are taken: end other test runs on this machine")


def _delete(device: str) -> None:
    """Remove a network device if it is there; a cable may be gone already with the namespace of its other end."""
    subprocess.run(["ip", "link", "del", device], capture_output=True, check=False)
