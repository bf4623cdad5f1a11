"""Which conditions the newest queries of a client all have while none of them has an answer, as Prometheus' external labels make them. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

IN_A_ROW: Final = 20
"""So many requests of a client without an answer make one ask whether the value is known at all."""
CLIENTS: Final = 64
"""Clients that are followed; the one that asked longest ago is forgotten."""

Pair = tuple[str, str]
"""A label and the value that it must have."""


@dataclass(slots=True)
class Client:
    """What one client asked for in its newest requests."""

    runs: dict[Pair, int] = field(default_factory=dict)
    """How many requests in a row, up to the newest one, wanted the pair and had no answer."""
    unknown: set[Pair] = field(default_factory=set)
    """Pairs among them that no series has ever had."""


class Wanted:
    """The conditions of all clients. Belongs to the event loop."""

    def __init__(self) -> None:
        """Knows nobody."""
        self._clients: OrderedDict[Pair, Client] = OrderedDict()

    def take(self, who: Pair, wanted: Iterable[Pair]) -> list[Pair]:
        """Notes a request: ``who`` is its tenant and address, ``wanted`` what all its queries want, nothing where there was an answer.

        Returns the pairs of which it is time to ask whether a series has ever had them: after ``IN_A_ROW`` requests, twice as many, four times ...
        """
        client = self._clients.setdefault(who, Client())
        self._clients.move_to_end(who)
        if len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        client.runs = {pair: client.runs.get(pair, 0) + 1 for pair in wanted}
        client.unknown &= client.runs.keys()
        return [pair for pair, run in client.runs.items() if run % IN_A_ROW == 0 and (run // IN_A_ROW).bit_count() == 1]

    def answered(self, who: Pair, pair: Pair, *, had: bool) -> int:
        """Notes whether a series has ever had a pair; how many requests are to be told of where none has and it was not known before, else 0."""
        client = self._clients.get(who)
        if client is None or pair not in client.runs:
            return 0
        if had:
            client.unknown.discard(pair)
            return 0
        new = pair not in client.unknown
        client.unknown.add(pair)
        return client.runs[pair] if new else 0

    def unknown(self, who: Pair) -> bool:
        """Whether the client's newest request wanted what no series has ever had."""
        client = self._clients.get(who)
        return client is not None and bool(client.unknown)
