"""Answers of other HTTP servers, which are read up to a limit: what they send is theirs to choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import ClientResponse


class TooLongError(Exception):
    """The body of an answer is longer than the reader takes."""


async def body_of(answer: ClientResponse, most: int) -> bytes:
    """The body; ``TooLongError`` as soon as there are more than ``most`` bytes of it."""
    found = bytearray()
    async for piece in answer.content.iter_any():
        found += piece
        if len(found) > most:
            raise TooLongError(f"more than {most} bytes")
    return bytes(found)
