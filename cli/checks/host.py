"""What ``virtflow doctor`` reads of the host itself: the daemon's limits, the clock."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virtflow.cli.checks.findings import Finding, bad, good
from virtflow.runtime.settings import Settings

CONFIGURATIONS: Final = (Path("/etc/libvirt/virtqemud.conf"), Path("/etc/libvirt/libvirtd.conf"))
CLOCK_SOURCE: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
GOOD_CLOCKS: Final = frozenset({"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "xen", "stp", "timebase"})
OWN_REQUESTS: Final = 2
"""Calls that the producer has under way on one connection at most."""
SHARE: Final = 4
"""The cap may be this part of the daemon's workers: the others are for the host's other clients."""
TIMEX_BYTES: Final = 512
UNSYNCHRONISED: Final = 5
"""``TIME_ERROR`` of adjtimex(2)."""


@dataclass(frozen=True, slots=True)
class DaemonLimits:
    """libvirtd's limits, its own defaults where the configuration can't be read; ``origin`` is the file or "defaults"."""

    max_workers: int = 20
    max_client_requests: int = 5
    origin: str = "defaults"


def daemon_limits(uri: str, files: tuple[Path, ...] = CONFIGURATIONS) -> DaemonLimits:
    """The limits of the daemon on this host; a remote one's are not known."""
    if "///" not in uri:
        return DaemonLimits()
    for path in files:
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        return DaemonLimits(_number(text, "max_workers", 20), _number(text, "max_client_requests", 5), str(path))
    return DaemonLimits()


def _number(text: str, key: str, default: int) -> int:
    found = re.search(rf"^\s*{key}\s*=\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else default


def findings(settings: Settings) -> Iterator[Finding]:
    """The daemon's limits against our needs, and the clock."""
    limits, cap = daemon_limits(settings.libvirt.uri), settings.producer.hung_calls_max
    told = f"{limits.max_workers} ({limits.origin}); virtflow may lose {cap} of them"
    if cap * SHARE <= limits.max_workers:
        yield good("max_workers", str(limits.max_workers), told)
    else:
        fix = f"set max_workers to {cap * SHARE} or more, or producer.hung_calls_max to {max(1, limits.max_workers // SHARE)}"
        yield bad("max_workers", str(limits.max_workers), told, fix)
    told = f"{limits.max_client_requests} ({limits.origin}) per connection; virtflow needs {OWN_REQUESTS}"
    if limits.max_client_requests >= OWN_REQUESTS:
        yield good("max_client_requests", str(limits.max_client_requests), told)
    else:
        yield bad("max_client_requests", str(limits.max_client_requests), told, "set it to 5, libvirt's default")
    yield from clock_findings()


def clock_findings() -> Iterator[Finding]:
    """The clock alone."""
    try:
        source = CLOCK_SOURCE.read_text("ascii").strip()
    except OSError:
        source = ""
    if source in GOOD_CLOCKS:
        yield good("clock source", source, "fast and steady")
    elif source:
        yield bad(
            "clock source", source, "slow: every look at the clock costs a system call", "see the kernel log for why tsc was given up"
        )
    if clock_state() == UNSYNCHRONISED:
        yield bad("clock", "not synchronised", "ages of samples are wrong at the centre by as much", "run chrony or systemd-timesyncd")
    else:
        yield good("clock", "synchronised", "by the kernel's word")


def clock_state() -> int:
    """What adjtimex(2) says of the clock; 0 (fine) where it can't be asked."""
    name = ctypes.util.find_library("c")
    adjtimex = getattr(ctypes.CDLL(name), "adjtimex", None) if name else None
    if adjtimex is None:
        return 0
    return int(adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)))
