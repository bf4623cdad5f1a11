"""The curves of a VM's long history: the names of the last hour's columns, and the PromQL that a history server evaluates for each."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from virtflow.exporter.views.totals import BALLOON_SECONDS


class Curve(NamedTuple):
    """One curve: the API's name for it, its title, unit and the page's format, and its expression.

    In the expression ``VM`` stands for the selector of the VM and ``W`` for the time before each point that the point is the mean of.
    """

    name: str
    title: str
    unit: str
    format: str
    expression: str


def _rate(*names: str) -> str:
    """The growth per second of counters, summed over their devices."""
    return " + ".join(f"sum(rate({name}VM[W]))" for name in names)


def _mean(name: str) -> str:
    """The mean of a gauge; a VM that was renamed meanwhile has several series, of which the largest counts."""
    return f"max(avg_over_time({name}VM[W]))"


_LEFT: Final = f"({_mean('vm_guest_memory_usable_bytes')} or {_mean('vm_guest_memory_free_bytes')})"
_FROZEN: Final = f"time() - max(max_over_time(vm_guest_memory_updated_timestamp_secondsVM[W])) > W_SECONDS + {BALLOON_SECONDS:.0f}"
_OF_THE_GUEST: Final = f"(({_mean('vm_guest_memory_total_bytes')} - {_LEFT}) unless ({_FROZEN}))"

CURVES: Final = (
    Curve("cpu_cores", "CPU cores", "cores", "cores", _rate("vm_cpu_seconds_total")),
    Curve("steal_cores", "Steal, cores", "cores", "cores", _rate("vm_vcpu_delay_seconds_total")),
    # The rule of docs/memory.md, "What the fleet page shows".
    Curve("memory_used", "Memory in use", "bytes", "size", f"{_OF_THE_GUEST} or {_mean('vm_memory_rss_bytes')}"),
    Curve("read_bytes", "Disk read", "bytes_per_second", "rate", _rate("vm_block_read_bytes_total")),
    Curve("write_bytes", "Disk written", "bytes_per_second", "rate", _rate("vm_block_write_bytes_total")),
    Curve(
        "latency",
        "Disk latency",
        "seconds",
        "latency",
        f"({_rate('vm_block_read_seconds_total', 'vm_block_write_seconds_total')})"
        f" / ({_rate('vm_block_read_requests_total', 'vm_block_write_requests_total')} > 0)",
    ),
    Curve("receive_bytes", "Received", "bytes_per_second", "rate", _rate("vm_network_receive_bytes_total")),
    Curve("transmit_bytes", "Sent", "bytes_per_second", "rate", _rate("vm_network_transmit_bytes_total")),
)
BY_NAME: Final = {curve.name: curve for curve in CURVES}
KNOWN_AT_ALL: Final = "max(max_over_time(vm_stateVM[W]))"
"""Known wherever there is any sample of the VM, whatever it did."""


def promql(expression: str, uuid: str, window_seconds: int) -> str:
    """The expression for one VM; each point is of the ``window_seconds`` before it."""
    words = expression.replace("W_SECONDS", str(window_seconds)).replace("[W]", f"[{window_seconds}s]")
    # JSON's escapes of a text are PromQL's too.
    return words.replace("VM[", f"{{uuid={json.dumps(uuid)}}}[")
