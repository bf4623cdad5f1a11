"""What a compacted topic holds: the newest record of each key, as messages are read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from virtflow.cli.bus.tap import KEY_LENGTH
from virtflow.cli.output.say import say
from virtflow.schemas.errors import UndecodableError
from virtflow.schemas.records import Record

if TYPE_CHECKING:
    from confluent_kafka import Message

    from virtflow.schemas.avro.codec import Codec

Kept = TypeVar("Kept", bound=Record)


def key_of(message: Message) -> str:
    """A message's key: a VM's UUID, or a node's name."""
    return (message.key() or b"").decode("utf-8", "replace")


def learn(known: dict[str, Kept], messages: Iterable[Message], codec: Codec, record: type[Kept], what: str) -> list[Kept]:
    """Updates the newest records by their keys from the messages; returns the new ones in order.

    A tombstone takes its key out. One that can't be decoded is told as ``what`` with its key, and changes nothing.
    """
    changed = []
    for message in messages:
        key, value = key_of(message), message.value()
        if value is None:
            known.pop(key, None)
            continue
        try:
            found = codec.decode(value, record)
        except UndecodableError as error:
            say(f"virtflow: {what} {key[:KEY_LENGTH]} is skipped: {error}", err=True)
            continue
        known[key] = found
        changed.append(found)
    return changed
