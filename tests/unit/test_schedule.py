"""Which worker runs which test files: what computes and what serves runs beside what waits, never twice at a time while it need not."""

from __future__ import annotations

from collections.abc import Iterable

from tests.support.schedule import Roles

COMPUTES = ["tests/lab/test_migration.py", "tests/faults/test_14_migration_under_faults.py"]
SERVES = ["tests/integration/test_topics.py", "tests/integration/test_exporter.py"]
WAITS = ["tests/lab/test_doctor.py", "tests/lab/test_stuck_vms.py", "tests/unit/test_schedule.py"]


def order(roles: Roles[str], workers: Iterable[str], files: Iterable[str], alive: Iterable[str] = "abcd") -> list[str]:
    """What the workers get, one after another, until nothing is left."""
    left, got = list(files), []
    for worker in workers:
        got.append(roles.next_file(worker, list(alive), left))
        left.remove(got[-1])
    assert not left
    return got


def test_the_longest_comes_first() -> None:
    assert order(Roles(), "aaa", WAITS) == ["tests/lab/test_stuck_vms.py", "tests/lab/test_doctor.py", "tests/unit/test_schedule.py"]


def test_files_that_compute_go_to_the_first_worker_and_those_that_serve_to_the_second() -> None:
    roles: Roles[str] = Roles()
    got = order(roles, "abcdabc", [*WAITS, *SERVES, *COMPUTES])
    assert got == [
        "tests/faults/test_14_migration_under_faults.py",
        "tests/integration/test_exporter.py",
        "tests/lab/test_stuck_vms.py",
        "tests/lab/test_doctor.py",
        "tests/lab/test_migration.py",
        "tests/integration/test_topics.py",
        "tests/unit/test_schedule.py",
    ]


def test_nobody_idles_while_anything_is_left() -> None:
    roles: Roles[str] = Roles()
    assert order(roles, "abccc", [*SERVES, *COMPUTES, WAITS[0]])[2:] == [WAITS[0], SERVES[0], COMPUTES[0]]
    assert order(roles, "aabb", [*SERVES, *COMPUTES]) == [COMPUTES[1], COMPUTES[0], SERVES[1], SERVES[0]]
    assert order(roles, "abab", [*WAITS[:2], *SERVES]) == [WAITS[1], SERVES[1], WAITS[0], SERVES[0]]


def test_the_role_of_a_worker_that_died_goes_to_its_successor() -> None:
    roles: Roles[str] = Roles()
    order(roles, "ab", [COMPUTES[0], SERVES[0]])
    assert order(roles, "ecb", [COMPUTES[0], WAITS[0], SERVES[0]], alive="ebc") == [COMPUTES[0], WAITS[0], SERVES[0]]
