"""Live migrations: those that run, and how the last ones ended."""

from __future__ import annotations

from tools.dashboards.board import Board, Part
from tools.dashboards.links import CELL, SERIES_VM, to_vm
from tools.dashboards.panels import Column, Panel, Query, Style, Text, by_vm, graph, number
from tools.dashboards.variables import node

EITHER = 'and on (uuid) (vm_migration_info{source=~"$node"} or vm_migration_info{destination=~"$node"})'
"""Migrations that come from a chosen hypervisor, or go to one."""
ACTIVE = "and on (uuid) vm_migration_active == 1"


def board() -> Board:
    """``migrations.json``."""
    parts = [Part("", _numbers()), Part("Running and last migrations", [_table()]), Part("How they go", _graphs())]
    return Board("migrations", "migrations", "Live migrations: running, and how the last ones ended.", [node()], parts)


def _numbers() -> list[Panel]:
    def ended(result: str) -> str:
        return f"round(sum(increase(virtflow_processors_migrations_total{{{result}}}[1d]))) or vector(0)"

    slow = Text("Without headway", "Remaining memory does not shrink from pass to pass.", ("VirtflowMigrationNotConverging",))
    failed = Text("Failed in a day", "Migrations that ended without success; cancelled ones not counted.", ("VirtflowMigrationFailed",))
    twice = Text("VMs claimed twice", "Two hypervisors say that they run the same VM.", ("VirtflowVmSplitBrain",))
    return [
        number(Text("Running now", "Migrations that are being followed."), "sum(vm_migration_active) or vector(0)"),
        number(slow, f"count(vm_migration_converging == 0 {ACTIVE}) or vector(0)", alarm=1),
        number(Text("Completed in a day", "Migrations that ended well."), ended('result="completed"')),
        number(failed, ended('result=~"failed|incomplete"'), alarm=1),
        number(
            Text("Moved per second", "Memory of all running migrations."),
            f"sum(vm_migration_memory_bytes_per_second {ACTIVE}) or vector(0)",
            "Bps",
        ),
        number(twice, "count(vm_conflict == 1) or vector(0)", alarm=1),
    ]


def _table() -> Panel:
    columns = [
        Column("", f"vm_migration_info {EITHER}"),
        Column("done", f"vm_migration_progress_ratio {EITHER}", "percentunit"),
        Column("expected still", f"vm_migration_expected_remaining_seconds {EITHER}", "s"),
        Column("so far", f"vm_migration_elapsed_seconds {EITHER}", "s"),
        Column("left", f"vm_migration_data_remaining_bytes {EITHER}", "bytes"),
        Column("pass", f"vm_migration_memory_iteration {EITHER}"),
        Column("written / moved", f"vm_migration_dirty_ratio {EITHER}", "percentunit"),
        Column("stood still", f"vm_migration_downtime_seconds {EITHER}", "s"),
    ]
    text = Text(
        "Migrations",
        "One line each, from where to where, with its result; an ended one stays for three intervals, or until the next with keep_last.",
        ("VirtflowMigrationFailed", "VirtflowMigrationNotConverging"),
    )
    return by_vm(text, ["operation", "source", "destination", "result"], columns, {"uuid": to_vm(CELL)})


def _graphs() -> list[Panel]:
    def of_each(text: Text, unit: str, *asked: tuple[str, str]) -> Panel:
        queries = [Query(f"{metric} {EITHER}", " ".join(filter(None, ("{{name}}", word)))) for metric, word in asked]
        return graph(text, queries, Style(unit, link=to_vm(SERIES_VM)))

    results = [Query("sum by (result) (increase(virtflow_processors_migrations_total[1h]))", "{{result}}")]
    return [
        of_each(
            Text("Left to move", "Falls in steps, one for each pass over the memory."), "bytes", ("vm_migration_data_remaining_bytes", "")
        ),
        of_each(
            Text("Written and moved", "Where memory is written to as fast as it is moved, the migration will not end by itself."),
            "Bps",
            ("vm_migration_memory_bytes_per_second", "moved"),
            ("vm_migration_memory_dirty_bytes_per_second", "written"),
        ),
        of_each(Text("Progress", "Part of the data that needs not be moved any more."), "percentunit", ("vm_migration_progress_ratio", "")),
        of_each(
            Text("Guest slowed", "Part of the guest's CPU time that auto-converge withholds."),
            "percentunit",
            ("vm_migration_auto_converge_throttle_ratio", ""),
        ),
        of_each(
            Text("Standing still", "Expected while it runs, and what it was once completed."),
            "s",
            ("vm_migration_expected_downtime_seconds", "expected"),
            ("vm_migration_downtime_seconds", "was"),
        ),
        graph(Text("Results", "Migrations that ended, per hour."), results),
    ]
