"""The monitor tier: what only a VM's QEMU can tell, asked on a connection of its own, because the answer may never come.

The rounds never wait for it beyond their deadline; an answer that comes later is handed out once, with the start of its call.
"""

from __future__ import annotations

from typing import Final

from virtflow.producer.calls import ask_monitors
from virtflow.producer.connection import Link
from virtflow.producer.inbox import Call
from virtflow.producer.merge import Answer

TIER: Final = "monitor"


class Monitor:
    """Asks all VMs in one call, and holds the answers until they are collected."""

    def __init__(self, link: Link) -> None:
        """``link`` is the tier's own connection."""
        self.link = link
        self.settled = False
        """Whether nothing more will come of this round's question."""
        self.seconds: float | None = None
        """How long the newest call that ended took."""
        self._asked = False
        self._call: Call | None = None
        self._answers: dict[str, Answer] = {}

    def begin(self) -> None:
        """A round begins."""
        self.settled, self._asked = False, False

    def advance(self) -> None:
        """Ask, once a round, as soon as the connection is free."""
        if self._asked or self._call is not None or self.link.lane is None:
            return
        self._asked = True
        self._call = self.link.lane.submit(TIER, ask_monitors)

    def take(self, call: Call, now: float) -> None:
        """A call has ended, in whatever round."""
        if call is not self._call:
            return
        self._call = None
        self.settled = self._asked
        if call.error is not None:
            self.link.drop(call.lane, now, str(call.error))
            return
        self.seconds = call.seconds
        for uuid, data in call.result.items():
            self._answers[uuid] = Answer(data, call.began, call.started)

    def collect(self) -> dict[str, Answer]:
        """The answers since the last time, each handed out once."""
        answers, self._answers = self._answers, {}
        return answers
