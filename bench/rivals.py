"""The programs that virtflow is measured against: installed from Debian, built from Go modules, or refused with the reason."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

from scripts.go_toolchain import go

GO_MODULES: Final[dict[str, str]] = {
    "inovex prometheus-libvirt-exporter": "github.com/inovex/prometheus-libvirt-exporter",
    "Tinkoff libvirt-exporter": "github.com/Tinkoff/libvirt-exporter",
}
"""Exporters that are to be had as Go modules only."""
LOOKUP_SECONDS: Final = 120.0
COLLECTD: Final = """
FQDNLookup false
Interval {interval}
BaseDir "{folder}"
PIDFile "{folder}/collectd.pid"
LoadPlugin virt
LoadPlugin write_prometheus
<Plugin virt>
  Connection "qemu:///system"
  HostnameFormat name
</Plugin>
<Plugin write_prometheus>
  Host "0.0.0.0"
  Port "{port}"
</Plugin>
"""
"""collectd's settings for a host's VMs: {interval} in seconds, {folder} its own, {port} where Prometheus scrapes it."""


def refused() -> dict[str, str]:
    """Why exporters that are Go modules can't be built, by name; those that the module proxy has are missing here."""
    found = {}
    for name, module in GO_MODULES.items():
        done = subprocess.run(
            [str(go()), "list", "-m", f"{module}@latest"], cwd="/", capture_output=True, text=True, check=False, timeout=LOOKUP_SECONDS
        )
        if done.returncode:
            # The address of whoever refused is of no interest to readers.
            found[name] = " ".join(re.sub(r"https?://\S+:?", "", done.stderr).split())[:300]
    return found


def installed_bytes(package: str) -> int:
    """What a collector takes on disk: a Debian package's own size, a program's, or all distributions of a Python requirement."""
    if package.startswith("/"):
        return Path(package).stat().st_size
    if package.startswith("virtflow"):
        return _python_bytes(package)
    told = subprocess.run(["dpkg-query", "-W", "-f", "${Installed-Size}", package], capture_output=True, text=True, check=True)
    return int(told.stdout) * 1024


def _python_bytes(requirement: str) -> int:
    """The files of every distribution that a requirement needs, Python itself apart."""
    extras = frozenset(requirement.partition("[")[2].rstrip("]").split(","))
    wanted, seen, total = [("virtflow", extras)], set(), 0
    while wanted:
        name, chosen = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        total += sum(path.stat().st_size for entry in distribution.files or [] if (path := Path(str(entry.locate()))).is_file())
        wanted += [one for text in distribution.requires or [] if (one := _needed(text, chosen))]
    # Ours is installed in place while it is worked on, so that its folder says how large it is.
    return total + sum(path.stat().st_size for part in ("schemas", "runtime", "producer", "cli") for path in _sources(part))


def _sources(part: str) -> list[Path]:
    return [path for path in (Path(__file__).resolve().parent.parent / part).rglob("*") if path.suffix in {".py", ".avsc"}]


def _needed(requirement: str, extras: frozenset[str]) -> tuple[str, frozenset[str]] | None:
    from packaging.requirements import Requirement

    one = Requirement(requirement)
    if one.marker is not None and not any(one.marker.evaluate({"extra": extra}) for extra in extras | {""}):
        return None
    return one.name, frozenset(one.extras)
