"""Live migrations for the lab's tests: in the background, watched by a second client, with what libvirt itself said of them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar, Self

import libvirt

from tests.support.lab import Guest, Lab, Node, migration
from tests.support.lab_process import LabError
from tests.support.lab_scrape import Scrape
from tests.support.watching import Watching
from virtflow.schemas.catalogue.migration import MIGRATION_METRICS
from virtflow.schemas.catalogue.types import Conversion, Job

END_SECONDS = 120.0
FIELDS = {m.name: m.source for m in MIGRATION_METRICS if isinstance(m.source, Job)}
GROWTH_SECONDS = 0.5
BURST_SECONDS = 2.0
NEAR_SECONDS = 0.2
"""How near another client's answer must be to the moment of the numbers; the tolerance is what the field grows in ``GROWTH_SECONDS``."""
UNDEFINE = "--undefinesource"
KEEP = "keep"
"""No option of virsh: leaves out ``UNDEFINE``."""


_started: list[subprocess.Popen[str]] = []


def end_all() -> None:
    """End every virsh that was started here and still runs: a test that fails does not wait for it, and leaves nothing to the next one."""
    while _started:
        process = _started.pop()
        process.kill()
        process.communicate()


def _start(command: Sequence[str], output: int | IO[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    _started.append(process)
    return process


@dataclass
class Migrating:
    """A ``virsh migrate`` in the background."""

    process: subprocess.Popen[str]

    @classmethod
    def begin(cls, guest: Guest, source: Node, destination: Node, mbps: int = 0, options: Sequence[str] = ()) -> Self:
        """Start it, at ``mbps`` MiB/s at most (0: as fast as it goes). With the option KEEP the source keeps the definition."""
        source.virsh("migrate-setspeed", guest.uuid, str(mbps or 8796093022207))
        command, *rest = migration(guest, destination)
        if KEEP in options:
            options, rest = [one for one in options if one != KEEP], [one for one in rest if one != UNDEFINE]
        full = source.virsh_command(command, *options, *rest)
        return cls(_start(full, subprocess.PIPE))

    @property
    def runs(self) -> bool:
        """Whether virsh still waits for the end."""
        return self.process.poll() is None

    def end(self) -> str:
        """Wait for the end; what virsh said, "" when it went well."""
        said, _ = self.process.communicate(timeout=END_SECONDS)
        return said.strip() if self.process.returncode else ""

    def succeed(self) -> None:
        """Wait for the end, which must be a good one."""
        if said := self.end():
            raise LabError(f"{self.process.args!r}: {said}")


def job_info(node: Node, guest: Guest, *options: str) -> dict[str, int]:
    """What ``virsh domjobinfo --rawstats`` says of a VM's job: libvirt's own names and units; empty where there is none."""
    lines = node.virsh("domjobinfo", "--rawstats", *options, guest.uuid).splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in pairs}
    return {key: int(value) for key, value in found.items() if value.lstrip("-").isdigit()}


@dataclass
class JobWatch(Watching):
    """A second client that asks libvirt for a VM's job all the time: each answer with when it was asked and when it came.

    It makes the call that ``virsh domjobinfo`` makes, without the time that starting a program takes.
    """

    pause_seconds: ClassVar[float] = 0.05

    node: Node
    guest: Guest
    answers: list[tuple[float, float, dict[str, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Connect."""
        self._domain = libvirt.openReadOnly(self.node.socket_uri).lookupByUUIDString(self.guest.uuid)

    def look(self) -> None:
        """Ask once."""
        begin = time.time()
        with suppress(libvirt.libvirtError):  # it has gone to the other node
            found = self._domain.jobStats()
            self.answers.append((begin, time.time(), found))

    def around(self, moment: float, name: str, reach_seconds: float) -> list[int]:
        """The values of a field in the answers near ``moment`` (Unix seconds)."""
        near = [found for begin, end, found in self.answers if begin - reach_seconds <= moment <= end + reach_seconds]
        return [found[name] for found in near if name in found]


def compare(seen: Scrape, jobs: JobWatch, guest: Guest) -> list[str]:
    """What is wrong with a scrape's numbers, against what another client was told around the moment they were taken."""
    taken = seen.value("vm_migration_updated_timestamp_seconds", uuid=guest.uuid)
    if taken is None:
        return []
    wrong = []
    page = jobs.around(taken, "memory_page_size", GROWTH_SECONDS)
    for name, source in FIELDS.items():
        value = seen.value(name, uuid=guest.uuid)
        said = jobs.around(taken, source.field, NEAR_SECONDS) or jobs.around(taken, source.field, GROWTH_SECONDS)
        if value is None or not said or name == "vm_migration_memory_iteration":
            continue
        # QEMU counts zero pages in bursts, and a poll of a busy host may be answered a second after QEMU has read them.
        wide = jobs.around(taken, source.field, BURST_SECONDS if source.field == "memory_constant" else GROWTH_SECONDS)
        growth = (max(wide) - min(wide)) / 2 if wide else 0.0
        factor = {Conversion.MILLISECONDS: 0.001, Conversion.PERCENT: 0.01, Conversion.PAGES: float(page[0]) if page else 0.0}
        near = said if source.field != "memory_constant" else [*said, *wide]
        least, most = (bound * factor.get(source.conversion, 1.0) for bound in (min(near) - growth, max(near) + growth))
        if not least * 0.999 <= value <= most * 1.001:
            wrong.append(f"{name} is {value}, libvirt said {least} to {most} around {taken:.2f}")
    return wrong


def with_own_disks(lab: Lab, node: Node) -> Path:
    """Give a node without VMs disks of its own: the paths are those of the lab, the folder behind them is the one that is returned.

    A hypervisor of another release has the folder in the root that it runs in as well, where the machine's mounts do not reach.
    """
    own, shared = node.folder / "disks", lab.folder / "disks"
    own.mkdir()
    for path in node.paths_of(shared):
        node.exec("mount", "--bind", str(own), str(path))
    return own


class CompletedJob:
    """Another client that listens to a node's ``job-completed`` events, as ``virsh event`` prints them."""

    def __init__(self, node: Node, guest: Guest, log: Path, seconds: float = END_SECONDS) -> None:
        """Returns once it listens; it waits for ``seconds`` at most."""
        command = ["virsh", "-c", node.uri, "event", "--domain", guest.uuid, "--event", "job-completed", "--timeout", str(int(seconds))]
        self._seconds = seconds
        self._log = log
        with log.open("w") as out:
            self._process = _start(command, out)

    def statistics(self) -> dict[str, int]:
        """What it was told; waits for the event."""
        self._process.wait(self._seconds)
        pairs = (line.split(":", 1) for line in self._log.read_text().splitlines() if ":" in line)
        found = {key.strip(): value.strip() for key, value in pairs}
        return {key: int(value) for key, value in found.items() if value.isdigit()}
