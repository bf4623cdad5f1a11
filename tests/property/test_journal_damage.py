"""Damage to a journal costs the records it hit and no other, and each is counted: against records whose places are known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from virtflow.producer.publishing.journal_records import HEADER, MARK, OVERHEAD, read, record

NONCE = 0xC0FFEE42
KEY = b"d4e232be-ede6-48cb-9c15-42cde320a1fc"

Damage = Callable[[bytearray], None]


class Segment(NamedTuple):
    """A segment's messages, its bytes, and where each record begins and ends."""

    messages: list[bytes]
    data: bytes
    spans: list[tuple[int, int]]


def segment_of(messages: list[bytes]) -> Segment:
    sizes = (OVERHEAD + len(KEY) + len(message) for message in messages)
    spans = list(pairwise(accumulate(sizes, initial=len(HEADER))))
    data = HEADER + b"".join(record(number, KEY, message, NONCE) for number, message in enumerate(messages))
    return Segment(messages, data, spans)


SEGMENTS = st.lists(st.binary(max_size=40).filter(lambda message: MARK not in message), min_size=1, max_size=30).map(segment_of)
PLACES = st.floats(0, 1, exclude_max=True)


def flip(place: float, bit: int) -> Damage:
    """One bit, anywhere."""

    def damage(data: bytearray) -> None:
        data[int(place * len(data))] ^= 1 << bit

    return damage


def tear(place: float, garbage: bytes) -> Damage:
    """A block that never reached the disk: zeros, or what was there before."""

    def damage(data: bytearray) -> None:
        at = int(place * len(data))
        data[at : at + len(garbage)] = garbage[: len(data) - at]

    return damage


def cut(place: float) -> Damage:
    """The end of the file is missing."""

    def damage(data: bytearray) -> None:
        del data[max(len(HEADER), int(place * len(data))) :]

    return damage


FLIPS = st.builds(flip, PLACES, st.integers(0, 7))
TEARS = st.builds(tear, PLACES, st.one_of(st.integers(1, 200).map(bytes), st.binary(min_size=1, max_size=200)))
DAMAGES = st.lists(st.one_of(FLIPS, TEARS), max_size=8).flatmap(
    lambda first: st.one_of(st.just(first), st.builds(cut, PLACES).map(lambda last: [*first, last]))
)


def test_what_is_whole_is_read_as_it_was_written() -> None:
    segment = segment_of([b"", b"one", MARK * 5, b"x" * 1000])
    found = read(segment.data, NONCE)
    assert (found.records, found.lost) == ([(KEY, message) for message in segment.messages], 0)


@given(SEGMENTS, FLIPS)
def test_a_flipped_bit_costs_one_record_at_most_and_is_counted(segment: Segment, damage: Damage) -> None:
    data = bytearray(segment.data)
    damage(data)
    hit = [number for number, (begin, end) in enumerate(segment.spans) if data[begin:end] != segment.data[begin:end]]
    found = read(bytes(data), NONCE)
    assert [message for _, message in found.records] == [m for number, m in enumerate(segment.messages) if number not in hit]
    assert found.lost == len(hit) <= 1


@given(SEGMENTS, DAMAGES)
def test_any_damage_costs_the_records_it_hit(segment: Segment, damages: list[Damage]) -> None:
    """Exactly those are missing. The count is exact up to the last whole record; behind it, at least one and no more than there were."""
    data = bytearray(segment.data)
    for damage in damages:
        damage(data)
    whole = [number for number, (begin, end) in enumerate(segment.spans) if data[begin:end] == segment.data[begin:end]]
    found = read(bytes(data), NONCE)
    assert found.records == [(KEY, segment.messages[number]) for number in whole]
    last = max(whole, default=-1)
    before = last + 1 - len(whole)
    behind = sum(begin < len(data) for begin, _ in segment.spans[last + 1 :])
    assert before + (behind > 0) <= found.lost <= before + behind


@given(SEGMENTS, st.integers(0, len(HEADER) - 1))
def test_nothing_but_a_part_of_the_header_counts_once(segment: Segment, size: int) -> None:
    found = read(segment.data[:size], NONCE)
    assert (found.records, found.lost) == ([], int(size > 0))


def test_a_record_within_a_damaged_message_is_none() -> None:
    """Whoever chooses a part of a message does not know the nonce, and cannot have events made up when its record is damaged."""
    forged = record(0, KEY, b"forged", 0)
    data = bytearray(segment_of([b"before", b"a title: " + forged, b"after"]).data)
    data[segment_of([b"before"]).spans[0][1] + OVERHEAD + len(KEY)] ^= 1
    found = read(bytes(data), NONCE)
    assert [message for _, message in found.records] == [b"before", b"after"]
    assert found.lost == 1
