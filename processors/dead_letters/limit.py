"""When there are too many undecodable messages: of one node, which is then reported, or of most of them, which stops processing.

Anybody who may write to a topic can write messages that can't be decoded, and must not stop the others' data by that. So the
messages are told apart by node. A node counts once a message of it was decoded, and until it is silent for ``NODE_SECONDS``. What
comes with a key that no decoded message had, or without one, comes from a *stranger*, and strangers stop nobody who is known.

Processing stops when the messages can't be told apart any more: a large share of the last ones is undecodable, and more than
that share of the nodes sends such messages, two at least. Then the mistake is ours (a bad release, a wrong topic), and moving
everything to the dead letters would only hide it. Where nothing was decoded yet, two different keys, or messages without a key,
look like that; a single key is one sender's, and the others have not been heard yet. Whether they are one sender's, too, is then looked
up (``processors/dead_letters/senders.py``): whoever is found counts as a node, and what is undecodable comes from strangers. Only where
nobody is found does processing stop.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from virtflow.processors.dead_letters.dead_letter import Message
from virtflow.schemas.errors import StopForGoodError
from virtflow.schemas.text import is_printable

NODE_SECONDS: Final = 600.0
"""A node from which nothing comes for so long no longer counts as one that works."""
NODES: Final = 10_000
"""Nodes that are told apart; beyond that the one that was silent for longest is forgotten."""
KEYS: Final = 10_000
"""Keys of events (UUIDs of VMs) whose node is remembered."""
NAMES: Final = 1_000
"""Names by which undecodable messages are counted: each is a series."""
STRANGERS: Final = 50
"""Strangers that are counted by name: anybody can invent names, and must not use up those of the nodes."""
NAME_BYTES: Final = 253
"""The longest name of a stranger that is counted by it: a host name's."""
OTHER: Final = "other"
"""The name of all strangers that have none, and of whoever comes after the first ``STRANGERS`` and ``NAMES``."""

_LOG: Final = logging.getLogger(__name__)


class TooManyUndecodableError(StopForGoodError):
    """So many of the last messages can't be decoded, of so many nodes, that going on would lose data silently."""


class Rule(Struct, frozen=True, kw_only=True):
    """What is too many: ``share`` of the last ``window`` messages of all, and of the last ``node_window`` messages of a node."""

    window: int
    node_window: int
    share: float


class _Node(Struct):
    """A sender's last messages, one bit each (1: undecodable), and when the newest came (monotonic seconds)."""

    last: int = 0
    heard: float = 0.0
    reported: bool = False


class DeadLetterLimit:
    """The undecodable messages among the last ones, in total and by node. No I/O but the log; the time is handed in."""

    def __init__(self, rule: Rule) -> None:
        """Nothing has been heard."""
        self._rule = rule
        self._mask = (1 << rule.node_window) - 1
        self._last: deque[bytes | None] = deque(maxlen=rule.window)
        """The keys of the undecodable ones among the last messages; None for each decoded one."""
        self._undecodable = 0
        self._nodes: OrderedDict[str, _Node] = OrderedDict()
        self._failing: set[str] = set()
        self._strangers: dict[str, _Node] = {}
        self._names: set[str] = set()
        self._node_of_key: OrderedDict[bytes, str] = OrderedDict()
        self._looked_up = False
        """Whether nobody was found since the last message that was decoded."""

    def undecided(self, now: float) -> bool:
        """Whether the next message may be one too many only because no node is known: ``found`` tells of those that were looked up."""
        self._forget(now)
        return not self._nodes and not self._looked_up and self._undecodable + 1 >= self._rule.share * self._rule.window

    def found(self, nodes: Iterable[str], now: float) -> None:
        """Counts nodes that send messages that can be decoded, wherever these were seen; none where nobody does."""
        for node in nodes:
            self._nodes[node] = self._strangers.pop(node, _Node())
            self._nodes[node].heard = now
        self._looked_up = not self._nodes
        if self._nodes:
            _LOG.warning(
                "none of the first messages can be decoded, %d of them; those of %d nodes can, and are not affected",
                self._undecodable,
                len(self._nodes),
            )

    def decoded(self, key: bytes, node: str, now: float) -> None:
        """Counts a message of ``node`` that was decoded, at ``now`` (monotonic seconds)."""
        self._append(None)
        self._looked_up = False
        state = self._nodes.get(node)
        if state is None:
            state = self._nodes[node] = self._strangers.pop(node, _Node())
        if self._node_of_key.get(key) != node:
            self._node_of_key[key] = node
            if len(self._node_of_key) > KEYS:
                self._node_of_key.popitem(last=False)
        self._heard(node, state, now, undecodable=False)

    def undecodable(self, message: Message, claimed: str, now: float) -> str:
        """Counts a message that can't be decoded; returns the name by which it is counted, a node's or ``OTHER``.

        ``claimed`` is the node that the message's key names; "" for a topic whose keys name no node. Raises
        ``TooManyUndecodableError`` that names the message when it is the one too many.
        """
        self._append(message.key[:NAME_BYTES])
        name = self._node_of_key.get(message.key, claimed)
        node = self._nodes.get(name)
        if node is not None:
            self._heard(name, node, now, undecodable=True)
        else:
            name = self._stranger(name)
        if self._undecodable >= self._rule.share * self._rule.window and self._is_everybody(now):
            raise TooManyUndecodableError(self._why(message))
        return self._counted_as(name)

    def _counted_as(self, name: str) -> str:
        if name not in self._names and len(self._names) >= NAMES:
            return OTHER
        self._names.add(name)
        return name

    def _append(self, key: bytes | None) -> None:
        if len(self._last) == self._last.maxlen:
            self._undecodable -= self._last.popleft() is not None
        self._last.append(key)
        self._undecodable += key is not None

    def _heard(self, name: str, node: _Node, now: float, *, undecodable: bool) -> None:
        node.heard = now
        self._nodes.move_to_end(name)
        self._judge(name, node, undecodable=undecodable)
        if node.reported:
            self._failing.add(name)
        else:
            self._failing.discard(name)
        self._forget(now)

    def _judge(self, name: str, node: _Node, *, undecodable: bool) -> None:
        """Counts a message of a sender; logs once when it has too many undecodable ones, and once when that is over."""
        node.last = (node.last << 1 | undecodable) & self._mask
        bad = node.last.bit_count()
        limit = self._rule.share * self._rule.node_window
        if not node.reported and bad >= limit:
            node.reported = True
            _LOG.warning(
                "%s: %d of its last %d messages can't be decoded; these go to the dead letters, and other nodes are not affected",
                name,
                bad,
                self._rule.node_window,
            )
        elif node.reported and not bad:
            node.reported = False
            _LOG.info("%s: its messages are decoded again", name)

    def _stranger(self, name: str) -> str:
        """The name by which a stranger is counted."""
        state = self._strangers.get(name)
        if state is None:
            if not name or not is_printable(name) or len(name.encode()) > NAME_BYTES or len(self._strangers) >= STRANGERS:
                return OTHER
            state = self._strangers[name] = _Node()
        self._judge(name, state, undecodable=True)
        return name

    def _forget(self, now: float) -> None:
        """Nodes that are silent say nothing about what works now."""
        while self._nodes:
            name, node = next(iter(self._nodes.items()))
            if len(self._nodes) <= NODES and now - node.heard <= NODE_SECONDS:
                return
            del self._nodes[name]
            self._failing.discard(name)

    def _is_everybody(self, now: float) -> bool:
        """Whether the undecodable messages are no longer those of a few."""
        self._forget(now)
        if self._nodes:
            failing, nodes = len(self._failing), len(self._nodes)
            return failing > 1 and (failing > self._rule.share * nodes or failing == nodes)
        keys = {key for key in self._last if key is not None}
        return len(keys) > 1 or b"" in keys

    def _why(self, message: Message) -> str:
        nodes = f", and so are those of {len(self._failing)} of {len(self._nodes)} nodes" if self._nodes else ""
        return (
            f"{self._undecodable} of the last {len(self._last)} messages can't be decoded "
            f"(limit: {self._rule.share:.0%} of {self._rule.window}){nodes}; "
            f"stopped before {message.topic}[{message.partition}] offset {message.offset}, which is not acknowledged; "
            "see the reasons in the dead letters, and fix the producer or the release"
        )
