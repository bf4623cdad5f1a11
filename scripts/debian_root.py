"""Root file systems of Debian releases, made by debootstrap from this machine's own package sources."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from scripts.debian_programs import Missing, debian_program

SCRIPTS: Final = Path("/usr/share/debootstrap/scripts")
STEP_SECONDS: Final = 1_200.0
NETWORK: Final = ("resolv.conf", "hosts", "pip.conf", "ssl/certs/ca-certificates.crt")
"""Files of /etc that a command in a root needs for the network; gone from the root afterwards."""
PRIVATE: Final = "awk '{print $5}' /proc/self/mountinfo | while read -r point; do mount --make-private \"$point\" 2>/dev/null || true; done"
"""A shell command after which no mount reaches the machine; "/" alone would not do, in a chroot it is no mount point."""
APT_CLIENT: Final = ("Acquire::http", "Acquire::https", "Acquire::Check", "Acquire::Retries")
"""Prefixes of the apt settings by which a machine reaches its mirror."""


class RootError(Exception):
    """A command that makes a root, or runs in it, failed."""


def bootstrap(release: str, root: Path) -> None:
    """Make the minimal system of a Debian release in ``root``. Raises ``RootError``."""
    try:
        program = debian_program("debootstrap")
    except Missing as error:
        raise RootError(str(error)) from error
    where = mirror()
    # A release that is younger than this machine's debootstrap is made as unstable is.
    script = [] if (SCRIPTS / release).exists() or not where else ["sid"]
    run([program, "--variant=minbase", release, str(root), *where, *script])


def mirror() -> list[str]:
    """Where this machine's own Debian packages come from; empty where it does not say, which leaves it to debootstrap."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    return (run([*targets, "Origin: Debian", "Label: Debian"]) or run(targets)).split()[:1]


def in_root(root: Path, command: str, environment: Mapping[str, str]) -> str:
    """Run a shell command in ``root`` with this machine's network; its output. Raises ``RootError``."""
    lent = []
    for name in NETWORK:
        source, target = Path("/etc") / name, root / "etc" / name
        if source.exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            lent.append(target)
    inner = f"mount -t proc proc /proc && mount -t tmpfs tmpfs /tmp && {{ {command}; }}"
    outer = f"{PRIVATE}; exec chroot {shlex.quote(str(root))} sh -c {shlex.quote(inner)}"
    try:
        return run(["unshare", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child", "sh", "-c", outer], environment)
    finally:
        for target in lent:
            target.unlink()


def install(root: Path, packages: Sequence[str]) -> None:
    """Install Debian packages in ``root`` without starting their services, and leave no package lists or archives. Raises ``RootError``."""
    with_apt(root, f"apt-get -qq -y --no-install-recommends install {shlex.join(packages)}")
    drop_archives(root)


def with_apt(root: Path, command: str) -> None:
    """Run a shell command in ``root`` that uses apt, whose lists are fresh and which reaches this machine's mirror. Raises ``RootError``."""
    policy, client = root / "usr/sbin/policy-rc.d", root / "etc/apt/apt.conf.d/99machine"
    settings = [line for line in run(["apt-config", "dump"]).splitlines() if line.startswith(APT_CLIENT)]
    client.write_text("\n".join(settings) + "\n")
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    try:
        in_root(root, f"apt-get -qq update && {command}", environment)
    finally:
        policy.unlink()
        client.unlink()


def drop_archives(root: Path) -> None:
    """Remove what apt and debootstrap keep for another run: packages and their lists."""
    for path in (*(root / "var/lib/apt/lists").iterdir(), *(root / "var/cache/apt/archives").glob("*.deb")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """A command's output. Raises ``RootError`` with the end of what it said when it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=STEP_SECONDS, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RootError(f"{shlex.join(command)[:300]}: exit {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout
