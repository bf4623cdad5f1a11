"""Programs that a measurement needs and a developer's machine need not have: rivals, and tools; from Debian's packages, by need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "prometheus-libvirt-exporter": ("prometheus-libvirt-exporter",),
    "collectd": ("collectd-core", "libprotobuf-c1", "libmicrohttpd12"),
    "debootstrap": ("debootstrap",),
}
"""Packages by the program that they bring: collectd's plugins are linked with libraries that its package only recommends."""
INSTALL_SECONDS: Final = 600.0


class Missing(Exception):  # noqa: N818, it is what it is
    """A program is not to be had: the reason in the words of what should have brought it."""


def debian_program(name: str) -> str:
    """The path of a program from Debian's packages, installed where it is missing; raises ``Missing``."""
    if found := shutil.which(name):
        return found
    if shutil.which("apt-get") is None:
        raise Missing(f"no apt-get here to install {' '.join(PACKAGES[name])} with")
    command = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *PACKAGES[name]]
    # Debian starts a package's service as it installs it, unless the policy file says no.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    try:
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{' '.join(command)}: {error}") from error
    finally:
        if ours:
            policy.unlink(missing_ok=True)
    found = shutil.which(name)
    if done.returncode or found is None:
        raise Missing(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")
    return found
