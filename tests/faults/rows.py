"""The faults that virtflow survives: what happens, how it is caused, what is promised, and where that is tested.

The tests of row N are those of ``tests/faults/test_NN_*.py``, found by that name, and those that ``elsewhere`` names. ``tools/reliability_page.py``
makes docs/reliability.md of this table; ``scripts/reliability`` runs the tests and keeps what they measured. I is the sampling interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Fault:
    """One row: ``elsewhere`` are test files, or tests as FILE::NAME, outside of the row's own; ``note`` says what is not caused, and what is done instead.

    ``command`` repeats what is measured where that is no test.
    """

    number: int
    name: str
    cause: str
    promise: str
    elsewhere: tuple[str, ...] = ()
    note: str = ""
    command: str = ""


FOR_EVERY_FAULT: Final = (
    "No process exits unless the row says so; memory, threads and descriptors return to where they were; each distinct problem is logged at most once "
    "a minute; the own metrics show the fault within 2 I; health answers in under 1 s throughout. Losses and repetitions are found by comparing what was "
    "*acknowledged* with what was *stored*, as multisets, then the order of each key."
)

FAULTS: Final = (
    Fault(
        1,
        "libvirtd restarts",
        "TERM and start, 20 times in a row",
        "A good snapshot at most 2 I after it is back, each time; each lifecycle event exactly once after the last restart.",
        ("tests/lab/test_recovery.py::test_a_restarted_libvirtd_costs_only_its_own_node_a_moment",),
    ),
    Fault(
        2,
        "libvirtd hangs",
        "SIGSTOP for 60 s, before a producer connects and while one is connected",
        "A node heartbeat with up = 0 every I; connecting is given up at its deadline; recovery at most 2 I after SIGCONT.",
    ),
    Fault(
        3,
        "One VM is stuck",
        "SIGSTOP of its QEMU for 5 minutes",
        "The groups that never wait are on time for all VMs, the stuck one included; the other VMs' full metrics are at most one round late; the stuck VM is "
        "flagged within 2 I, its monitor's values vanish instead of being repeated, the flag is cleared within 2 I after SIGCONT; exactly one call hangs.",
        ("tests/lab/test_stuck_vms.py",),
    ),
    Fault(
        4,
        "Many VMs are stuck at once",
        "SIGSTOP of the QEMUs of 1, 3, 8, 30 and 92 of 100 VMs, as when shared storage is gone",
        "As for one VM; calls that hang on a host are never above their limit, also after 10 restarts of the producer meanwhile; another client still gets XML "
        "and statistics of a healthy VM in under 1 s.",
        ("tests/lab/test_stuck_services.py",),
    ),
    Fault(
        5,
        "The broker is down",
        "Stopped for 1, 6 and 30 minutes",
        "Sampling goes on in time; no event is lost, they wait on disk; the newest snapshots are kept, the oldest are dropped and counted exactly; the backlog "
        "drains faster than live; the order of each VM is kept.",
        (
            "tests/lab/test_recovery.py::test_a_stopped_broker_costs_the_oldest_rounds_and_they_are_counted",
            "tests/integration/test_publish.py::test_a_broker_that_is_away_at_start_costs_the_oldest_rounds",
            "tests/integration/test_processors.py::test_a_broker_that_goes_away_for_a_while_costs_nothing",
            "tests/integration/test_exporter_broker_away.py",
            "tests/integration/test_broker_silent.py",
        ),
    ),
    Fault(
        6,
        "The broker's disk is full",
        "A small tmpfs as its disk",
        "As when the broker is down; recovers by itself.",
        ("tests/integration/test_journal_disk.py",),
        note="Kafka ends where it can't write, and what supervises it starts it again once there is room: the test does so. virtflow's services go on by themselves.",
    ),
    Fault(
        7,
        "The broker is killed in the middle of a batch",
        "SIGKILL every 20 s",
        "What was acknowledged is consumed, nothing twice, the order of each key is kept.",
        ("tests/integration/test_processors_delivery.py::test_what_fails_is_produced_again_until_the_broker_is_back",),
    ),
    Fault(
        8,
        "The history writer is killed between write and commit",
        "Chosen points of its code, then SIGKILL at random moments",
        "Rows stored are the rows expected: none twice, none missing.",
        ("tests/faults/test_history_upkeep_killed.py",),
    ),
    Fault(
        9,
        "A storm of rebalances",
        "A member of the group joins or leaves every 3 s for 5 minutes",
        "The lag is 0 within 60 s afterwards; nothing is lost; `/metrics` is not affected.",
        ("tests/integration/test_processors.py::test_partitions_move_between_two_processes_and_nothing_is_lost",),
    ),
    Fault(
        10,
        "Poison messages",
        "Empty, random, wrong magic, unknown schema, truncated, trailing bytes, a flipped bit, a newer schema, 10 MB; by hand, among good ones and alone",
        "No crash; offsets move on; each is in the dead letters with topic, partition, offset and reason; a newer compatible schema is **read**; when "
        "everything is poison it stops and says so rather than move everything to the dead letters.",
        note="Dead letters are the processors', and so is the stop. The exporter and the history skip what can't be decoded in the topics that they read, count it (by topic, by table "
        "and reason) and go on, however much it is.",
    ),
    Fault(
        11,
        "Clocks are wrong; messages are shuffled, late or repeated",
        "Clocks shifted by an hour either way, replays",
        "The order is that of (boot id, sequence), not of time; a repeated message has no visible effect; the future never moves a watermark.",
        (
            "tests/property/test_fleet_order.py",
            "tests/unit/exporter/test_fleet.py::test_a_clock_that_jumps_changes_nothing",
            "tests/integration/test_processors.py::test_duplicates_are_passed_by_and_counted",
        ),
    ),
    Fault(
        12,
        "A VM is deleted and made again",
        "Same name, new UUID, within one I",
        "Two identities; the old series are gone within 3 I; no counter joins them.",
        note="The two VMs come as messages of a producer, not from libvirt: libvirt's part of it, a UUID that goes and one that comes, is that of any VM.",
    ),
    Fault(
        13,
        "Two hosts report one UUID",
        "A real live migration; then a forged second host",
        "Exactly one sample of each series at every scrape; a gap of at most 2 I at a hand-over; a conflict that lasts is shown, and decided the same way "
        "everywhere.",
        ("tests/lab/test_migration.py", "tests/property/test_fleet_migration.py"),
    ),
    Fault(
        14,
        "Counters begin again",
        "Reboot, replugged device, migration",
        "A counter drops at most once for each reset, is never negative, and `rate()` is never above the truth.",
        ("tests/lab/test_values.py::test_a_reboot_drops_counters_once",),
    ),
    Fault(
        15,
        "Scale",
        "10,000 VMs from simulated nodes",
        "The figures of the benchmarks; no message above 1 MB.",
        ("tests/integration/test_publish.py::test_rounds_arrive_in_order_and_large_ones_in_parts",),
        note="Measured, not asserted: [benchmarks](benchmarks.md) and [a million VMs](scale.md).",
        command="scripts/bench growth pipeline scrape",
    ),
    Fault(
        16,
        "Hostile names",
        "Every name and title that libvirt accepts, the longest title, a lone surrogate",
        "The scrape parses in full (`promtool check metrics`); one bad VM never costs another's samples.",
    ),
    Fault(
        17,
        "A hostile guest agent",
        "A guest that answers slowly, falsely, endlessly or never",
        "By default no agent is asked. Where asking was switched on: other VMs are not affected, calls are bounded, and the rest of the producer survives.",
        ("tests/lab/test_guest_process.py", "tests/lab/test_guest_agent.py"),
    ),
    Fault(
        18,
        "Slow clients on the pages",
        "2,000 half requests, slow readers, 500 scrapes at once",
        "A normal scrape takes at most 2 s meanwhile; connections are limited; idle ones are closed; excess gets 503.",
        ("tests/unit/runtime/test_web.py",),
    ),
    Fault(
        19,
        "Idle connections on the TLS port",
        "200 connections without a hello",
        "Scrapes are not affected.",
    ),
    Fault(
        20,
        "Wrong passwords",
        "1,000 a second",
        "Scrapes are not affected; an unknown user takes as long as a known one.",
    ),
    Fault(
        21,
        "The history's storage is down, full or read-only",
        "Stopped, a small tmpfs, remounted, SIGSTOP of an object store",
        "The writer pauses, commits nothing, and resumes; nothing is lost or stored twice; the exporter is not affected.",
        ("tests/unit/history/test_away.py",),
    ),
    Fault(
        22,
        "Memory pressure",
        "A cgroup's limit at 1.2 times the normal memory, and a burst of ten times the load",
        "Intake pauses before the kernel kills.",
        ("tests/unit/runtime/test_memory.py", "tests/unit/history/test_memory_short.py"),
        note="Tested of the history's writer, whose memory grows most with its load, and of the processors.",
    ),
    Fault(
        23,
        "A bad network",
        "5 % of packets lost, 300 ms of delay, no network for 2 minutes",
        "As when the broker is down; no VM has two owners.",
        note="The link is two TUN devices, and between them a process that loses packets, holds them back or carries none, because not every kernel has netem.",
    ),
    Fault(
        24,
        "SIGTERM, SIGKILL, restart",
        "At random moments",
        "TERM: drained and committed within 10 s, exit code 0. KILL: as for a broker that is down, and a history writer that is killed.",
        (
            "tests/integration/test_processors.py::test_killed_again_and_again_nothing_is_lost",
            "tests/lab/test_recovery.py::test_killed_processors_take_up_where_they_were",
            "tests/lab/test_recovery.py::test_a_restarted_exporter_has_every_vm_in_its_first_ready_scrape",
            "tests/lab/test_recovery.py::test_a_killed_producer_starts_a_new_run_that_is_newer",
        ),
    ),
    Fault(
        25,
        "A topic is deleted or truncated below a consumer",
        "Records are deleted; a broker is restored from a copy",
        "Handled by a stated policy and counted; no silent jump.",
        (
            "tests/unit/history/test_lost_end.py",
            "tests/unit/history/test_topic_made_again.py",
            "tests/unit/processors/test_lineage.py",
            "tests/integration/test_exporter.py::test_records_deleted_before_they_are_taken_are_counted",
            "tests/integration/test_exporter.py::test_a_topic_made_anew_is_read_from_its_beginning",
        ),
    ),
    Fault(
        26,
        "An old producer with new processors, and the reverse",
        "Recorded messages of each released schema; all parts of the release before, replaced one after another by today's, and back",
        "All of them are decoded; a missing field is absent, never 0. After each step samples go on, and each is stored once.",
        ("tests/contract/test_compatibility.py",),
    ),
    Fault(
        27,
        "Bad configuration",
        "A table of bad files",
        "`virtflow check` exits with 1, and names file, key, value, reason and fix.",
    ),
    Fault(
        28,
        "Everything at once, for hours",
        "200 VMs, the faults above at random",
        "Memory grows by less than 1 MiB an hour; nothing is lost or stored twice.",
        ("tests/unit/test_soak.py",),
        note="A run of hours is no test of every day: the tests hold its plan and its comparisons, and [the last soak](soak.md) says how long it was and what it saw.",
        command="scripts/soak --hours 2",
    ),
    Fault(
        29,
        "Rows 1 to 4 and 17 on every release of libvirt",
        "The releases of [the tested versions](compatibility.md), libvirtd and virtqemud",
        "The same promises.",
        ("tests/lab/test_migration_releases.py", "tests/contract/test_tested_versions.py"),
        note="The tests of rows 1, 2, 3, 4 and 17 run on each release with `--long`, and on the machine's own without.",
        command="scripts/reliability --long 1 2 3 4 17",
    ),
    Fault(
        30,
        "The schema registry is away",
        "Away at a start, away later, answering 500, slow",
        "Writers: one framing for each topic, and no start is refused. Readers wait and say so; nothing is skipped; recovery by itself.",
        ("tests/contract/test_registry.py",),
    ),
    Fault(
        31,
        "Gaps in the offsets that are no loss",
        "Transactions committed and aborted, compaction, deleted marks",
        "Nothing is counted as lost, the lag reaches 0, readiness is not affected.",
    ),
    Fault(
        32,
        "A power cut",
        "The newest commit of length zero, torn or without its data file, after a kill",
        "`virtflow history verify` names it; the writer fills in what Kafka has; nothing is stored twice.",
        ("tests/property/test_journal_damage.py",),
        note="The power itself is not cut: the files are left as a disk leaves them that had not written everything.",
    ),
    Fault(
        33,
        "Certificates and passwords are changed while everything runs",
        "New files, old ones revoked: a SCRAM password; certificates of clients and broker, signed by another authority",
        "No restart, no loss, no gap above 2 I.",
        (
            "tests/unit/runtime/test_credentials.py",
            "tests/unit/runtime/test_web_tls.py::test_a_new_certificate_is_shown_to_new_connections",
            "tests/unit/runtime/test_web_access.py::test_new_users_count_at_once",
        ),
        note="Connections that there are stay, as with every client of Kafka; the test ends them by a restart of the broker, after which only the new files are good for anything.",
    ),
    Fault(
        34,
        "A producer's clock, host name or machine id changes",
        "A shifted clock, a renamed host",
        "One node, one order; the old name vanishes as a node does.",
        ("tests/unit/exporter/test_fleet.py::test_a_node_of_an_earlier_run_is_stale",),
    ),
)
