"""What a key costs ``virtflow top`` on a fleet of 10,000 VMs, in a terminal of 200 columns and 50 lines, asking an exporter over HTTP.

    python -m bench.fleet_top

Milliseconds of CPU of its process, from a key until the screen shows what the key asks for; answers that come meanwhile are in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Final

from bench.centre_processes import cpu_seconds_of
from bench.fleet_api import VMS
from tests.support.fleet_samples import busy, fleet_records, lasting
from tests.support.served_exporter import exporter_of, get, served
from tests.support.terminal import Terminal

REPEATS: Final = 7
KEYS: Final[tuple[tuple[str, str, str], ...]] = (
    ("one row down", "j", "k"),
    ("one screen down", "\x1b[6~", "\x1b[5~"),
    ("to the last row", "\x1b[F", "\x1b[H"),
    ("another order", "s", "S"),
    ("the other way round", "r", "r"),
    ("open a VM, and back", "\r", "\x1b"),
    ("nodes, and back to all VMs", "n", "v"),
)
"""What a key does, the key, and the key that undoes it."""


def keys() -> dict[str, float]:
    """The median of some presses of each key."""
    exporter = exporter_of(request_timeout_seconds=120.0)
    with served(exporter) as url:
        exporter.take(lasting(fleet_records(VMS, rounds=1)))
        get(f"{url}/api/v1/fleet")
        exporter.take(lasting(busy(number, 1) for number in range(VMS)))
        get(f"{url}/api/v1/vms?sort=-cpu&history=cpu_cores")
        with Terminal("top", "--url", url, "--sort", "-cpu", "--refresh", "3600", columns=200, lines=50) as terminal:
            terminal.wait_for(lambda text: f"{VMS:,} of {VMS:,}" in text, "the VMs are shown")
            return {name: median(_pressed(terminal, *both) for _ in range(REPEATS)) for name, *both in KEYS}


def _pressed(terminal: Terminal, key: str, back: str) -> float:
    """Presses a key, and then the one that undoes it, of which the price is not counted."""
    before, began = terminal.text(), cpu_seconds_of(terminal.pid)
    terminal.press(key)
    _settled(terminal, lambda text: text != before)
    spent = cpu_seconds_of(terminal.pid) - began
    shown = terminal.text()
    terminal.press(back)
    _settled(terminal, lambda text: text != shown)
    return 1_000 * spent


def _settled(terminal: Terminal, good: Callable[[str], bool]) -> None:
    """Waits until the screen is good, and the program uses no more CPU: its answer has come."""
    terminal.wait_for(good)
    before = -1.0
    while (now := cpu_seconds_of(terminal.pid)) != before:
        before = now
        time.sleep(0.2)
        terminal.drain()


def main() -> None:
    """Print all."""
    for name, spent in keys().items():
        print(f"{spent:8.1f} ms  {name}")


if __name__ == "__main__":
    main()
