"""Consumer groups with cooperative rebalances: who is to have which partition, and when a member hears of it.

A rebalance ends with one call of each member, which may bring nothing. What moves is first revoked from the one that has it, and given to
the other in the next rebalance. A member that was closed leaves at once, but for a static one, which keeps its place.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.support.memory_kafka.cluster import MemoryTopic

Key = tuple[str, int]
"""A topic and a partition."""


@dataclass(slots=True, eq=False)
class Place:
    """A member's place in its group."""

    instance: str
    topics: frozenset[str]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    has: set[Key] = field(default_factory=set)
    target: set[Key] = field(default_factory=set)
    heard: int = -1
    """The last rebalance that the member was called about."""
    fenced: bool = False
    """Another member of its name has taken the place."""


class Group:
    """One group. All of it under the cluster's lock."""

    def __init__(self, topics: Mapping[str, MemoryTopic]) -> None:
        """Without members."""
        self._topics: Final[Mapping[str, Any]] = topics
        self.members: list[Place] = []
        self.generation = 0
        self.offsets: dict[Key, tuple[int, str]] = {}
        """What was committed: the offset to go on from, and its metadata."""

    def join(self, topics: frozenset[str], instance: str) -> Place:
        """Take a place; that of a member of the same name, which is fenced."""
        place = Place(instance, topics)
        for other in [other for other in self.members if instance and other.instance == instance]:
            other.fenced = True
            self.members.remove(other)
        self.members.append(place)
        self.balance()
        return place

    def leave(self, place: Place) -> None:
        """Give a place up."""
        if place in self.members:
            self.members.remove(place)
            self.balance()

    def balance(self) -> None:
        """Deal the partitions that there are, each staying where it is as far as that is fair."""
        self.generation += 1
        left = {(name, number) for name, topic in self._topics.items() for number in range(len(topic.logs))}
        wanted = {place.id: {key for key in left if key[0] in place.topics} for place in self.members}
        everything = {key for keys in wanted.values() for key in keys}
        least, more = divmod(len(everything), len(self.members) or 1)
        for place in self.members:
            place.target = set()
        for place in sorted(self.members, key=lambda place: -len(place.has)):
            share = least + (more > 0 and len(place.has) > least)
            more -= share > least
            place.target = set(sorted(place.has & wanted[place.id] & everything, reverse=True)[:share])
            everything -= place.target
        for key in sorted(everything):
            able = [place for place in self.members if key in wanted[place.id]]
            min(able, key=lambda place: len(place.target)).target.add(key)

    def revoked_from(self, place: Place) -> set[Key]:
        """What a member is to give up."""
        return place.has - place.target

    def given_to(self, place: Place) -> set[Key]:
        """What a member is to have now: nobody else has it any more."""
        taken = {key for other in self.members if other is not place for key in other.has}
        return place.target - place.has - taken
