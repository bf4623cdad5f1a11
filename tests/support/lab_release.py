"""The Debian releases whose libvirt and QEMU the lab runs, each in a root of its own; the list that tests and docs/compatibility.md follow."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from scripts import debian_root
from scripts.embedded_kafka import data_folder, one_at_a_time
from tests.support import lab_modular
from tests.support.lab_process import LabError
from tests.support.long import LONG

PACKAGES: Final = (
    "libvirt-daemon",
    "libvirt-daemon-system",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
    "iproute2",
)
MACHINE: Final = Path("/")
"""The root of the machine itself, which is used for its own release."""


@dataclass(frozen=True, slots=True)
class Release:
    """A Debian release, and which hypervisor it brings."""

    name: str
    libvirt: str
    """Major and minor version, as ``virsh version`` says them."""
    qemu: str
    in_ci: bool
    """Whether every run of the tests includes it; else only ``--long`` does."""
    modular: bool = False
    """Whether ``--long`` also runs its virtqemud."""


RELEASES: Final[dict[str, Release]] = {
    release.name: release
    for release in (
        Release("bookworm", "9.0", "7.2", in_ci=True),
        Release("trixie", "11.3", "10.0", in_ci=True, modular=True),
        Release("forky", "12.8", "11.1", in_ci=False),
    )
}
"""Oldest first. The last is Debian's testing, whose versions move."""
OLDEST_MACHINES: Final = ("pc-q35-7.2", "pc-i440fx-7.2")
"""QEMU's machine types that all releases know, for VMs that move between them."""


Daemon = Literal["libvirtd", "virtqemud"]


def machines_release() -> str:
    """The Debian release of this machine, "" where it is none of RELEASES or has no hypervisor of its own."""
    lines = Path("/etc/os-release").read_text().splitlines()
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    name = said.get("VERSION_CODENAME", "").strip('"') if said.get("ID", "").strip('"') == "debian" else ""
    return name if name in RELEASES and shutil.which("libvirtd") and shutil.which("qemu-system-x86_64") else ""


def usual() -> str:
    """The release that tests run on unless they name others: this machine's own, else the oldest."""
    return machines_release() or next(iter(RELEASES))


def releases(*, every_run: bool = False, modular: bool = False) -> tuple[str, ...]:
    """What a test's labs are to run: every release with ``--long``, else the usual one, or those of CI if the test belongs to ``every_run``.

    ``modular``: with ``--long`` also "trixie-virtqemud", the modular daemon of a release.
    """
    if LONG:
        return (*RELEASES, *(f"{one.name}-virtqemud" for one in RELEASES.values() if modular and one.modular))
    return tuple(one.name for one in RELEASES.values() if one.in_ci) if every_run else (usual(),)


def root_of(name: str) -> Path:
    """The root that holds the release's hypervisor: the machine's, or one that is made on first use and kept in the data folder."""
    if name not in RELEASES:
        raise LabError(f"there is no release {name!r}: choose of {', '.join(RELEASES)}")
    return MACHINE if name == machines_release() else _own_root(name)


def modular_daemons(name: str) -> Path:
    """The folder with the release's virtqemud and virtproxyd, built on first use and kept in the data folder."""
    root, recipe = _own_root(name), "".join((*lab_modular.COMMANDS, *lab_modular.PROGRAMS))
    return _kept(f"{name}-modular", recipe, lambda programs: lab_modular.build(root, programs))


def _own_root(name: str) -> Path:
    recipe = " ".join((*PACKAGES, Path(debian_root.__file__).read_text()))
    return _kept(name, recipe, lambda root: _make(name, root))


def _kept(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """A folder of the data folder that is made once by each recipe."""
    folder = data_folder() / "roots" / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder.with_suffix(".lock")):
        if not folder.exists():
            make(folder)
    return folder


def _make(name: str, root: Path) -> None:
    fresh = root.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        debian_root.bootstrap(name, fresh)
        debian_root.install(fresh, PACKAGES)
    except debian_root.RootError as error:
        raise LabError(f"no root of {name}: {error}") from error
    fresh.rename(root)


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """What a node runs: the programs of a release, and which daemon; VMs without a machine type of their own get ``machines``."""

    release: str
    daemon: Daemon = "libvirtd"
    machines: tuple[str, str] = ("q35", "pc")
    """PCIe and PCI."""
    root: Path = field(init=False)
    programs: Path | None = field(init=False)
    """The folder of daemons that are not in the root."""

    def __post_init__(self) -> None:
        """Make the release's root and daemons if they are not there yet."""
        object.__setattr__(self, "root", root_of(self.release))
        object.__setattr__(self, "programs", None if self.daemon == "libvirtd" else modular_daemons(self.release))

    @property
    def elsewhere(self) -> bool:
        """Whether its programs are not the machine's."""
        return self.root != MACHINE

    @property
    def services(self) -> dict[str, list[str]]:
        """Command lines of the daemons that listen on the local sockets and on TCP, by name; the one that holds the VMs first."""
        if self.programs is None:
            return {"libvirtd": ["libvirtd", "--listen", *_pid_file("libvirtd")]}
        daemon, proxy = (str(self.programs / name) for name in lab_modular.PROGRAMS)
        # virtproxyd listens on TCP only with a socket that systemd hands it.
        activate = ["systemd-socket-activate", "--listen=16509", "--fdname=virtproxyd-tcp.socket", "--setenv=PATH"]
        return {"virtqemud": [daemon, *_pid_file("virtqemud")], "virtproxyd": [*activate, proxy, *_pid_file("virtproxyd")]}

    def inside(self, inner_root: Path, command: Iterable[str]) -> list[str]:
        """The command line that runs ``command`` with the release's programs, in a node that laid its root out at ``inner_root``."""
        return ["chroot", str(inner_root), *command] if self.elsewhere else list(command)


def _pid_file(daemon: str) -> list[str]:
    return ["--pid-file", f"/run/libvirt/{daemon}.pid"]
