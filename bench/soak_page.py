"""``docs/soak.md``: what the last soak did, and what it saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.soak_plan import NOT_CAUSED
from tools.documents import NOTICE, table

RESULTS: Final = Path(__file__).resolve().parent.parent / "docs" / "soak.json"
SLOPE_MIB_PER_HOUR: Final = 1.0
"""By which a service's memory may grow."""
VERDICT_HOURS: Final = 1.0
"""A slope from less is shown, and judges nothing."""
ABOUT: Final = (
    "`scripts/soak` runs the whole pipeline for hours while faults happen to it at random: two real libvirtd in namespaces of their own with paused VMs, a producer on "
    "each, a real Kafka, processors, exporter and history writer, all as processes of their own. Beside it a checker scrapes as Prometheus does and looks at every process. In the end "
    "the samples that the broker acknowledged are compared with those in the table, as multisets."
)


def soak_page() -> str:
    """``docs/soak.md``."""
    return page(json.loads(RESULTS.read_text()) if RESULTS.exists() else None)


def page(found: Mapping[str, Any] | None) -> str:
    """The page of a run, None where there was none."""
    parts = [NOTICE, "# Soak", ABOUT]
    parts += ["No run is recorded yet: `scripts/soak --hours 2` makes this page."] if found is None else _run(found)
    return "\n\n".join(parts) + "\n"


def _run(found: Mapping[str, Any]) -> list[str]:
    load = f"{found['vms']} VMs on {found['nodes']} nodes, every {found['interval_seconds']:g} s"
    problems = found["problems"]
    verdict = "**Passed**: nothing below was outside of its bounds." if not problems else "**Failed**:"
    return [
        f"`{found['command']}`, begun {found['began']}, {found['hours']:.2f} hours long, seed {found['seed']}; {load}. virtflow {found['version']}; {found['machine']}.",
        verdict + _not_judged(found["processes"]),
        *(["\n".join(f"- {problem}" for problem in problems)] if problems else []),
        *_faults(found["faults"]),
        *_records(found["records"], found["rounds_dropped"]),
        *_scrapes(found["scrapes"], found["interval_seconds"]),
        *_processes(found["processes"]),
    ]


def _not_judged(processes: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name, one in processes.items() if one["slope_hours"] < VERDICT_HOURS]
    return f" The run, or what its lives leave of it, was too short to judge the growth of memory of {', '.join(names)}." if names else ""


def _faults(faults: list[Mapping[str, Any]]) -> list[str]:
    rows = [
        (str(one["row"]), one["kind"], str(one["times"]), f"{one['seconds']:.0f} s", f"{one['recovery_worst_seconds']:.0f} s")
        for one in faults
    ]
    return [
        "## Faults",
        f"Row is that of [reliability](reliability.md). Recovered is when every node is up, every VM is shown and answers, and the lag is gone. {NOT_CAUSED}",
        table(("row", "fault", "times", "lasted, in all", "recovered after, at most"), rows),
    ]


def _records(records: Mapping[str, int], dropped: float) -> list[str]:
    return [
        "## Nothing lost, nothing twice",
        table(
            ("what", "count"),
            [
                ("rounds that the broker acknowledged", f"{records['rounds']:,}"),
                ("rounds that never came, of those between a producer's first and last", f"{records['rounds_missing']:,}"),
                ("rounds and values that the producers counted as dropped", f"{dropped:,.0f}"),
                ("samples of VMs in them", f"{records['samples']:,}"),
                ("of these not processed", f"{records['samples_not_processed']:,}"),
                ("repeated on `vm.metrics` (known by their identity)", f"{records['samples_repeated_on_the_topic']:,}"),
                ("rows in the table", f"{records['rows']:,}"),
                ("processed and not stored", f"{records['rows_missing']:,}"),
                ("stored twice", f"{records['rows_twice']:,}"),
                ("stored, and sent by nobody", f"{records['rows_of_nobody']:,}"),
            ],
        ),
    ]


def _scrapes(scrapes: Mapping[str, Any], interval_seconds: float) -> list[str]:
    return [
        "## Scrapes",
        f"Every {interval_seconds:g} s. Faults that keep samples away make VMs' ages grow, and after three intervals the VMs vanish until samples come again.",
        table(
            ("what", "value"),
            [
                ("scrapes", str(scrapes["count"])),
                ("without an answer", str(scrapes["failed"])),
                ("that showed every VM", str(scrapes["with_every_vm"])),
                ("series that were there twice", str(scrapes["twice"])),
                ("longest", f"{scrapes['longest_seconds']} s"),
                ("age of a VM's sample (99th percentile), median scrape", f"{scrapes['age_median_seconds']} s"),
                ("the same, worst scrape", f"{scrapes['age_worst_seconds']} s"),
            ],
        ),
    ]


def _processes(processes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            name,
            str(one["lives"]),
            _ends(one["resident_mib"]),
            f"{one['slope_mib_per_hour']:.2f}",
            f"{one['slope_hours']:.2f}",
            _ends(one["threads"]),
            _ends(one["descriptors"]),
            "" if one["health_slowest_seconds"] is None else f"{one['health_slowest_seconds']} s",
        )
        for name, one in processes.items()
    ]
    head = ("process", "lives", "memory MiB", "MiB an hour", "from hours", "threads", "descriptors", "slowest health")
    return [
        "## Processes",
        (
            f"Memory (VmRSS) is at the begin, at most, and at the end; so are threads and descriptors, whose begin is after the first part of the run. The slope leaves out the first part of the run and the first minutes of each life; it "
            f"has to be below {SLOPE_MIB_PER_HOUR:g} MiB an hour, and is judged when it comes from {VERDICT_HOURS:g} hour or more: from less, caches that fill look like growth."
        ),
        table(head, rows),
        *_over_time(processes),
    ]


def _over_time(processes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [(name, _ends(one["resident_mib_over_time"])) for name, one in processes.items() if one.get("resident_mib_over_time")]
    return [table(("process", "memory MiB, every ten minutes"), rows)] if rows else []


def _ends(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
