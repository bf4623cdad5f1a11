"""A process finds another one in its place in the group."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException

from virtflow.processors.instance_id import Fence, Members, NameTakenError
from virtflow.runtime.settings import Processors, Settings

SETTINGS = Settings(processors=Processors(instance="one"))


def answering(*answers: dict[str, str] | None) -> Members:
    """A broker that tells one after another, and does not answer where there is None."""
    left: Iterator[dict[str, str] | None] = iter(answers)

    def members() -> dict[str, str]:
        answer = next(left)
        if answer is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return answer

    return members


async def lives(fence: Fence) -> None:
    """It joins, is to join again, and once more."""
    await fence.check()
    await fence.joined()
    await fence.check()


@pytest.mark.parametrize(
    "answers",
    [
        ({"one": "one-a", "two": "two-a"}, {"one": "one-a", "two": "two-b"}),
        ({"one": "one-a"}, {}),
        ({"one": "one-a"}, None),
        ({}, {"one": "one-b"}),
        (None, {"one": "one-b"}),
    ],
    ids=["still there", "expired", "no answer", "unseen", "no answer when it joined"],
)
def test_nobody_has_taken_its_place(answers: tuple[dict[str, str] | None, ...]) -> None:
    """Before it has joined the first time nothing is asked: whoever is there is its predecessor."""
    asyncio.run(lives(Fence(SETTINGS, answering(*answers))))


def test_another_has_taken_its_place() -> None:
    with pytest.raises(NameTakenError, match="another process has joined group virtflow-processors under the same name 'one'"):
        asyncio.run(lives(Fence(SETTINGS, answering({"one": "one-a"}, {"one": "one-b"}))))
