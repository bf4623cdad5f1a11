"""Which daemons have appeared, moved, gone or been replaced between two scans."""

from __future__ import annotations

from virtflow.producer.daemons.membership import changes
from virtflow.producer.daemons.sockets import DaemonSocket, Scan

A, B = (1, 10), (1, 11)


def sock(identity: tuple[int, int], path: str) -> DaemonSocket:
    """A user's socket."""
    return DaemonSocket(identity, path, 107)


def test_all_are_new_at_first() -> None:
    found = changes({}, Scan((sock(A, "/1"), sock(B, "/2"))))
    assert (found.new, found.moved, found.gone) == ((sock(A, "/1"), sock(B, "/2")), (), ())
    assert found.replaces(A) is None


def test_nothing_changes_while_the_same_are_there() -> None:
    found = changes({A: "/1", B: "/2"}, Scan((sock(B, "/2"), sock(A, "/1"))))
    assert (found.new, found.moved, found.gone) == ((), (), ())


def test_one_that_is_missing_has_gone() -> None:
    found = changes({A: "/1", B: "/2"}, Scan((sock(B, "/2"),)))
    assert (found.new, found.moved, found.gone) == ((), (), (A,))


def test_one_that_another_path_leads_to_has_moved() -> None:
    found = changes({A: "/proc/5/root/sock"}, Scan((sock(A, "/proc/7/root/sock"),)))
    assert (found.new, found.moved, found.gone) == ((), (sock(A, "/proc/7/root/sock"),), ())


def test_a_new_socket_in_the_place_of_one_that_is_gone_replaces_it() -> None:
    found = changes({A: "/1"}, Scan((sock(B, "/1"),)))
    assert (found.new, found.gone, found.replaces(B)) == ((sock(B, "/1"),), (A,), A)


def test_a_new_socket_in_another_place_replaces_none() -> None:
    assert changes({A: "/1"}, Scan((sock(B, "/2"),))).replaces(B) is None


def test_a_scan_that_is_not_complete_takes_nothing_away() -> None:
    for scan in (Scan((sock(B, "/2"),), complete=False), Scan((sock(B, "/2"),), left_out=1)):
        found = changes({A: "/1"}, scan)
        assert (found.new, found.gone, found.replaces(B)) == ((sock(B, "/2"),), (), None)
