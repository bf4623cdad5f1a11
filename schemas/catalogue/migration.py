"""The catalogue's rows about migrations: what libvirt's job statistics say, and what follows from them.

They are ephemeral: libvirt reports them while the job runs, on the source only, and once more when it has completed. Source of the
fields and units: libvirt's ``VIR_DOMAIN_JOB_*`` macros and ``virsh domjobinfo``.
"""

from __future__ import annotations

from virtflow.schemas.catalogue.types import MIGRATION_PREFIX, Conversion, Derived, Group, Job, Metric, Type

_NONE, _MS, _PAGES, _PERCENT = Conversion.NONE, Conversion.MILLISECONDS, Conversion.PAGES, Conversion.PERCENT
_RATE = "bytes_per_second"


def _row(name: str, unit: str, text: str, source: Job | Derived, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(MIGRATION_PREFIX + name, Type.GAUGE, unit, text, Group.MIGRATION, source, labels, ephemeral=True)


def _state() -> tuple[Metric, ...]:
    return (
        _row("active", "", "Whether a migration of the VM is running.", Derived("result of the VM's VmMigration")),
        _row(
            "info",
            "",
            "The VM's running or last migration in words; always 1.",
            Derived("the VM's newest VmMigration"),
            ("operation", "type", "source", "destination", "result"),
        ),
    )


def _times() -> tuple[Metric, ...]:
    return (
        _row("elapsed_seconds", "seconds", "How long the migration has taken so far, or took.", Job("time_elapsed", _MS)),
        _row("setup_seconds", "seconds", "How long the migration took to be set up.", Job("setup_time", _MS)),
        _row(
            "downtime_seconds",
            "seconds",
            "How long the VM stood still at the end of a completed migration.",
            Derived("downtime of the completed job"),
        ),
        _row(
            "expected_downtime_seconds",
            "seconds",
            "How long the VM would stand still if the migration ended now.",
            Derived("downtime of the running job"),
        ),
    )


def _amounts() -> tuple[Metric, ...]:
    words = (
        ("total", "to be moved in all"),
        ("processed", "moved so far; pages that were written to again count again"),
        ("remaining", "still to be moved"),
    )
    return tuple(
        _row(f"{what}_{word}_bytes", "bytes", f"{noun} {text}.", Job(f"{what}_{word}"))
        for what, noun in (("data", "Bytes"), ("memory", "Bytes of memory"), ("disk", "Bytes of disks"))
        for word, text in words
    )


def _memory() -> tuple[Metric, ...]:
    return (
        _row("memory_bytes_per_second", _RATE, "Rate at which memory is moved.", Job("memory_bps")),
        _row("disk_bytes_per_second", _RATE, "Rate at which disks are moved.", Job("disk_bps")),
        _row("memory_constant_bytes", "bytes", "Memory whose pages hold one value throughout.", Job("memory_constant", _PAGES)),
        _row("memory_normal_bytes", "bytes", "Memory moved as whole pages.", Job("memory_normal", _PAGES)),
        _row("memory_compression_bytes", "bytes", "Bytes sent of compressed pages.", Job("compression_bytes")),
        _row("memory_compression_cache_bytes", "bytes", "Size of the cache of page compression.", Job("compression_cache")),
        _row("memory_compression_pages", "", "Pages sent compressed.", Job("compression_pages")),
        _row(
            "memory_compression_cache_misses",
            "",
            "Pages that could not be compressed because the cache held no earlier content of them.",
            Job("compression_cache_misses"),
        ),
        _row("memory_compression_overflows", "", "Pages that compression would have made larger.", Job("compression_overflow")),
        _row(
            "memory_dirty_bytes_per_second",
            _RATE,
            "Rate at which the guest writes to pages that were moved already.",
            Job("memory_dirty_rate", _PAGES),
        ),
        _row("memory_iteration", "", "Number of the pass over the VM's memory.", Job("memory_iteration")),
        _row("memory_page_size_bytes", "bytes", "Size of a page of the VM's memory.", Job("memory_page_size")),
        _row("memory_postcopy_requests", "", "Pages the destination asked for in post-copy.", Job("memory_postcopy_requests")),
        _row(
            "auto_converge_throttle_ratio",
            "ratio",
            "Part of the guest's CPU time that is withheld so that the migration can end.",
            Job("auto_converge_throttle", _PERCENT),
        ),
    )


def _convergence() -> tuple[Metric, ...]:
    return (
        _row(
            "progress_ratio",
            "ratio",
            "Part of the data that needs not be moved any more, at most 1.",
            Derived("data remaining of data total"),
        ),
        _row(
            "converging",
            "",
            "Whether one of the last passes over the memory had less to do than any before: 1 yes, 0 no.",
            Derived("memory remaining at the beginning of the last passes"),
        ),
        _row(
            "dirty_ratio",
            "ratio",
            "Rate at which memory is written to of the rate at which it is moved; from 1 on the migration can't end by itself.",
            Derived("memory dirty rate of memory rate"),
        ),
        _row(
            "expected_remaining_seconds",
            "seconds",
            "How long the migration would still take at the present rates; absent where it would never end.",
            Derived("memory remaining of memory rate less dirty rate"),
        ),
    )


def _moments() -> tuple[Metric, ...]:
    when = (
        ("started", "the migration started"),
        ("paused", "the source stopped the VM for the switch-over"),
        ("resumed", "the destination went on with the VM"),
        ("ended", "the migration ended, whatever its result"),
        ("updated", "the numbers of the migration were taken"),
    )
    return tuple(
        _row(
            f"{word}_timestamp_seconds",
            "seconds",
            f"When {text}, in Unix time.",
            Derived(f"VmMigration.{word}"),
        )
        for word, text in when
    )


MIGRATION_METRICS: tuple[Metric, ...] = _state() + _times() + _amounts() + _memory() + _convergence() + _moments()
"""Every metric of a VM's running or last migration."""
