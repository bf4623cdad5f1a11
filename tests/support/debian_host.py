"""A Debian system in a folder: commands in it without any network, packages installed in it, and its systemd as the first process."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from scripts.debian_packages import PACKAGES, ROOT, bare_root, copy_root
from scripts.debian_root import PRIVATE, with_apt
from scripts.embedded_kafka import data_folder, one_at_a_time
from scripts.supervise import await_true
from tests.support.doc_blocks import block
from tests.support.started import Started

STEP_SECONDS: Final = 300.0
BOOT_SECONDS: Final = 60.0
APART: Final = ("unshare", "--mount", "--propagation", "unchanged", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child")
"""A program in namespaces of its own, which ends with this one."""
NOT_PACKED: Final = frozenset({"tests", "bench", "tools", ".github", ".ci", "docker-compose.yml"})
"""What of the checkout is in no package."""
SYSTEMD: Final = "/usr/lib/systemd/systemd --system"
KEPT: Final = "packages"
"""The folder in the root for the packages under test."""
NOT_COMPARED: Final = ("var/cache", "var/lib/apt", "var/lib/dpkg", "var/log", "var/lib/systemd", "tmp", "run", "proc", "sys", "dev", KEPT)
"""Folders that any installation changes, whatever it installs."""
DEVICES: Final = {"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9", "tty": "5 0"}
KEPT_FROM_SYSTEMD: Final = "-sys_module,-sys_time,-sys_boot,-sys_rawio,-syslog,-mac_admin,-audit_control"
"""Capabilities that would reach this machine: a namespace does not hold what they allow."""
MOUNTS: Final = (
    "mount --bind {root} {root}",
    "mount -t proc proc {root}/proc",
    "mount -t sysfs -o ro sysfs {root}/sys",
    "mount -t tmpfs -o mode=755 tmpfs {root}/dev",
    *(f"mknod -m 666 {{root}}/dev/{name} c {number}" for name, number in DEVICES.items()),
    "mkdir {root}/dev/pts {root}/dev/shm",
    "mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts {root}/dev/pts",
    "mount -t tmpfs -o mode=1777 tmpfs {root}/dev/shm",
    "ln -s pts/ptmx {root}/dev/ptmx",
    "ln -s /proc/self/fd {root}/dev/fd",
    "mount -t tmpfs -o mode=755 tmpfs {root}/run",
    "mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
    # The kernel's settings are this machine's, and stay what they are.
    "mount --bind {root}/proc/sys {root}/proc/sys",
    "mount -o remount,bind,ro {root}/proc/sys",
)
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}


def built_packages(release: str) -> dict[str, Path]:
    """Both packages of a release by their names, built as docs/install-fleet.md says, once for what of the last commit goes into them."""
    tree = subprocess.run(["git", "-C", ROOT, "ls-tree", "HEAD"], capture_output=True, text=True, check=True).stdout
    content = "".join(line for line in tree.splitlines() if line.split()[-1] not in NOT_PACKED)
    place = data_folder() / "packages" / release
    place.mkdir(parents=True, exist_ok=True)
    built = place / hashlib.sha256(content.encode()).hexdigest()[:12]
    with one_at_a_time(place / "build.lock"):
        if not (built / "done").exists():
            for old in place.glob("*/"):
                shutil.rmtree(old)
            page = block("sh packages").replace("bookworm", release).replace("dist", str(built))
            subprocess.run(["bash", "-euo", "pipefail", "-c", page], cwd=ROOT, check=True)
            (built / "done").touch()
    return {name: next(built.glob(f"{name}_*.deb")) for name in PACKAGES}


def next_build(package: Path, folder: Path) -> Path:
    """The same package as its next build."""
    tree, file = folder / package.stem, folder / package.name.replace("-1~", "-2~")
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"^(Version: .*)-1~", r"\1-2~", control.read_text(), flags=re.MULTILINE))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, file], check=True, capture_output=True)
    return file


def in_host(root: Path, command: str, **variables: str) -> list[str]:
    """The command line that runs a shell command in a system, without a network but loopback; ``variables`` are of its environment."""
    given = [f"{key}={value}" for key, value in (ENVIRONMENT | variables).items()]
    enter = f"exec chroot {root} {shlex.join(['env', '-i', *given, 'sh', '-c', command])}"
    return [*APART, "sh", "-c", f"{PRIVATE}; " + " && ".join([*(step.format(root=root) for step in MOUNTS), "ip link set lo up", enter])]


class DebianHost:
    """A release's minimal system, and what was installed in it."""

    def __init__(self, release: str, root: Path, *, like: DebianHost | None = None) -> None:
        """Copy the bare system into ``root``, or what ``like`` has become of it, which does not run."""
        self.root: Path = copy_root(bare_root(release) if like is None else like.root, root)
        (self.root / KEPT).mkdir(exist_ok=True)
        self.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")

    def fetch(self, *packages: Path) -> None:
        """Download what packages of ours need from Debian, and install it: with the network, so that they themselves need none."""
        needed = " ".join(sorted({name for file in self._placed(packages) for name in self._depends(file)}))
        with_apt(self.root, f"apt-get -qq -y --no-install-recommends install {needed}")

    def _depends(self, file: str) -> Iterator[str]:
        told = self.run(f"dpkg-deb --field {file} Depends")
        yield from (each.split()[0] for each in told.split(","))

    def run(self, command: str) -> str:
        """The output of a shell command in the system, without a network; fails with what it said."""
        done = self.result(command)
        assert done.returncode == 0, f"{command}: exit {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
        return done.stdout

    def result(self, command: str) -> subprocess.CompletedProcess[str]:
        """A shell command in the system, without a network but loopback, to its end."""
        words = in_host(self.root, command)
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)

    def install(self, *packages: Path, options: str = "") -> str:
        """Install packages of ours as an administrator does, with files of Debian's that are there already."""
        return self.run(f"apt-get -q -y --no-install-recommends {options} install {' '.join(self._placed(packages))}")

    def _placed(self, packages: Iterable[Path]) -> list[str]:
        """Packages of ours as files of the system."""
        return [f"/{Path(shutil.copy(package, self.root / KEPT)).relative_to(self.root)}" for package in packages]

    def files(self) -> set[str]:
        """Every path of the system, from its root, but those that any installation changes."""
        found = set()
        for folder, folders, names in os.walk(self.root):
            inside = os.path.relpath(folder, self.root)
            folders[:] = [name for name in folders if os.path.normpath(f"{inside}/{name}") not in NOT_COMPARED and name != "__pycache__"]
            found |= {os.path.normpath(f"{inside}/{name}") for name in (*folders, *names)}
        return {path for path in found if not path.endswith("-") and path not in {"etc/ld.so.cache", "etc/.pwd.lock"}}

    def text(self, path: str) -> str:
        """What a file of the system says."""
        return (self.root / path).read_text()

    def write(self, path: str, text: str) -> None:
        """Write a file of the system."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


class SystemdHost(Started):
    """The same system, with its own systemd as the first process of its own namespaces: processes, mounts, network, control groups.

    Control groups are version 2 without controllers where this machine's kernel has them in version 1: units run, limits are not enforced.
    """

    def __init__(self, host: DebianHost) -> None:
        """Nothing runs before ``start``."""
        self.host = host
        self._outer: subprocess.Popen[bytes] | None = None
        self._log = host.root.with_name(f"{host.root.name}.console")
        self._group = Path(_cgroup2()) / f"virtflow-test-{os.getpid()}-{host.root.name}"

    def start(self) -> None:
        """Boot, and return once systemd says that it is up."""
        self._group.mkdir(exist_ok=True)
        root = self.host.root
        boot = [
            *(step.format(root=root) for step in MOUNTS),
            f"mount -t tmpfs -o mode=755 tmpfs {root}/sys/fs/cgroup",
            f"mount -t cgroup2 cgroup2 {root}/sys/fs/cgroup",
            "ip link set lo up",
            f"cd {root} && mkdir -p mnt && pivot_root . mnt && umount -l /mnt",
            # As the kernel's first process has it: a service's credentials are mounted in a namespace of their own, and must arrive here.
            "mount --make-rshared /",
            f"exec setpriv --bounding-set={KEPT_FROM_SYSTEMD} env -i container=other PATH={ENVIRONMENT['PATH']} {SYSTEMD}",
        ]
        inner = f"{PRIVATE}; {' && '.join(boot)}"
        script = f"echo $$ > {self._group}/cgroup.procs && exec {shlex.join([*APART, '--cgroup', 'sh', '-c', inner])}"
        with self._log.open("wb") as log:
            self._outer = subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        assert await_true(lambda: self.state() in {"running", "degraded"}, BOOT_SECONDS), self._log.read_text()[-3000:]

    @property
    def pid(self) -> int:
        """Its first process, as this machine sees it."""
        (child,) = self._children()
        return child

    def state(self) -> str:
        """What systemd says of the whole system; empty while it does not answer."""
        return self.result("systemctl is-system-running").stdout.strip()

    def close(self) -> None:
        """End it with all that it runs."""
        if self._outer is not None:
            for child in self._children():
                os.kill(child, signal.SIGKILL)
            self._outer.wait(30)
            self._outer = None
        for group in sorted(self._group.rglob("*/"), reverse=True):
            group.rmdir()
        if self._group.exists():
            self._group.rmdir()

    def _children(self) -> list[int]:
        assert self._outer is not None
        return [int(pid) for pid in Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()]

    def result(self, command: str) -> subprocess.CompletedProcess[str]:
        """A shell command beside systemd, to its end."""
        children = self._children()
        if not children:
            return subprocess.CompletedProcess([], 1, "", "")
        given = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
        words = ["nsenter", "--target", str(children[0]), "--all", "--root", "--wd", "env", "-i", *given, "sh", "-c", command]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)

    def run(self, command: str) -> str:
        """The output of a shell command beside systemd; fails with what it said."""
        done = self.result(command)
        assert done.returncode == 0, f"{command}: exit {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
        return done.stdout

    def property(self, unit: str, name: str) -> str:
        """A property of a unit, as systemd has it."""
        return self.run(f"systemctl show --property {name} --value {unit}").strip()

    def until(self, holds: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Wait until something holds; fails with the end of the journal."""
        assert await_true(holds, seconds), f"{what}: {self.result('journalctl -q --no-pager -n 40').stdout}"


def _cgroup2() -> str:
    """Where this machine has control groups of version 2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next(words[1] for words in mounts if words[2] == "cgroup2")
