"""The monitor tier: what only a VM's QEMU can tell, asked on connections of its own, because the answer may never come.

This is the edge around ``captives``: it makes the calls that those decide on, tells them what came of it, and holds the answers until
a round collects them. A captured call keeps its lane, which is replaced by a new one. Rounds never wait for this tier beyond
their deadline; an answer that comes later is handed out once, with the begin of its call.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import Final

from virtflow.producer.calls import Listed, ask_monitors, look
from virtflow.producer.captive import (
    Abandon,
    Action,
    Answered,
    Ask,
    Failed,
    Limits,
    Look,
    Looked,
    Moved,
    Observation,
    Reconnected,
    RoundBegan,
    Started,
    Ticked,
    Verdict,
)
from virtflow.producer.captives import Captives
from virtflow.producer.connection import Lane, Link
from virtflow.producer.health import Lost
from virtflow.producer.inbox import Call
from virtflow.producer.merge import STATE, Answer, answered, newest
from virtflow.producer.processes import Processes
from virtflow.runtime.settings import Producer
from virtflow.schemas.states import SHUT_OFF

ASK: Final = "monitor"
LOOK: Final = "look"
PATIENCE_RATIO: Final = 0.2
PATIENCE_SECONDS: Final = (0.25, 2.5)
"""How long a call may stay in one VM, in intervals, and the bounds of that."""

_LOGGER: Final = logging.getLogger(__name__)


def limits(settings: Producer) -> Limits:
    """The limits that follow from the settings."""
    least, most = PATIENCE_SECONDS
    interval = settings.interval_seconds
    patience = min(most, max(least, interval * PATIENCE_RATIO))
    return Limits(settings.captive_calls, patience, 2 * interval, max(2 * interval, settings.probe_maximum_seconds))


class Monitor:
    """Asks the VMs' monitors as the captives' state allows, and holds the answers until they are collected."""

    def __init__(self, link: Link, safe: Link, settings: Producer, rng: random.Random, processes: Processes | None = None) -> None:
        """``link`` is the tier's own connection; looks, which never wait, go by ``safe``."""
        self.link = link
        self.captives = Captives(limits(settings), rng)
        self.seconds: float | None = None
        """How long the newest call that ended took."""
        self._safe = safe
        self._processes = processes or Processes()
        self._listed: Listed | None = None
        self._begun = False
        self._wanted: Ask | None = None
        self._numbers: dict[Call, int] = {}
        self._answers: dict[str, Answer] = {}

    # -- the round

    def begin(self) -> None:
        """A round begins; it is ``listed`` that says with which VMs."""
        self._begun = False

    def listed(self, found: Listed, now: float, until: float) -> None:
        """The round's VMs are known: begin to ask."""
        self._listed, self._begun = found, True
        self._observe(RoundBegan(tuple(found.vms), until), now)

    def advance(self, now: float) -> None:
        """Do what time or a new connection allows."""
        if self._wanted is not None and self.link.lane is not None:
            self._submit(self._wanted, self.link.lane, now)
        if now >= self.captives.due:
            self._observe(Ticked(), now)

    @property
    def due(self) -> float:
        """When ``advance`` has something to do at the latest."""
        return self.captives.due

    @property
    def settled(self) -> bool:
        """Whether nothing more will come in this round."""
        return self._begun and self.captives.settled

    def collect(self) -> dict[str, Answer]:
        """The answers since the last time, each handed out once."""
        answers, self._answers = self._answers, {}
        return answers

    def verdicts(self) -> dict[str, Verdict]:
        """What is shown of each VM's monitor."""
        return self.captives.verdicts()

    def health(self, verdicts: Mapping[str, Verdict]) -> Lost:
        """What the node's health tells of this tier."""
        captives = self.captives
        return Lost(
            captives.lost,
            captives.limits.cap,
            sum(verdict.responsive is False for verdict in verdicts.values()),
            sum(not verdict.probed for verdict in verdicts.values()),
            dict(captives.probes),
            dict(captives.calls),
        )

    # -- the cap, for whoever else calls into a VM (``jobs.Cap``)

    def may_poll(self, uuid: str, *, vouched: bool) -> bool:
        """Whether a call into this VM may be made now; it keeps its slot until ``returned`` or ``lost``."""
        return self.captives.may_poll(uuid, vouched=vouched)

    def returned(self, uuid: str) -> None:
        """That call has come back."""
        self.captives.poll_returned(uuid)

    def lost(self, uuid: str) -> None:
        """That call does not come back."""
        self.captives.poll_lost(uuid, time.monotonic())

    # -- what arrives

    def take(self, call: Call, now: float) -> None:
        """A call of this tier has come back, in whatever round."""
        number = self._numbers.pop(call, None)
        if number is None:
            return
        if call.error is not None:
            lost = not call.lane.alive
            if lost:
                self.link.drop(call.lane, now, str(call.error))
            self._observe(Failed(number, lost), now)
            return
        self.seconds = call.seconds
        full: set[str] = set()
        partial: set[str] = set()
        found = {uuid: Answer(data, call.began, call.started) for uuid, data in call.result.items()}
        self._answers = newest(self._answers, found)
        for uuid, data in call.result.items():
            (full if answered(data) or self._off(uuid) else partial).add(uuid)
        self._observe(Answered(number, frozenset(full), frozenset(partial)), now)

    def looked(self, call: Call, now: float) -> None:
        """A look has come back."""
        if call.error is None and isinstance(call.result, Looked):
            self._observe(call.result, now)

    def moved(self, uuid: str, now: float) -> None:
        """Something happened to a VM."""
        self._observe(Moved(uuid), now)

    def reconnected(self, now: float) -> None:
        """The safe connection was lost or is a new one: looks under way will not come back."""
        if self._wanted is not None and self.link.lane is None:
            self._wanted = None
        self._observe(Reconnected(), now)

    def _off(self, uuid: str) -> bool:
        vm = self._listed.vms.get(uuid) if self._listed else None
        return vm is None or vm.data.get(STATE) == SHUT_OFF

    # -- what is decided

    def _observe(self, observation: Observation, now: float) -> None:
        for action in self.captives.observe(observation, now):
            self._do(action, now)

    def _do(self, action: Action, now: float) -> None:
        match action:
            case Ask():
                self._wanted = action
                if self.link.lane is not None:
                    self._submit(action, self.link.lane, now)
            case Look(uuids):
                self._look(uuids)
            case Abandon(number):
                self._abandon(number, now)

    def _submit(self, ask: Ask, lane: Lane, now: float) -> None:
        self._wanted = None
        self._numbers[lane.submit(ASK, ask_monitors(ask.uuids, everyone=ask.everyone))] = ask.call
        self._observe(Started(ask.call), now)

    def _look(self, uuids: tuple[str, ...]) -> None:
        lane, found = self._safe.lane, self._listed
        if lane is None or found is None:
            return  # the connection is gone; `reconnected` follows
        domains = {uuid: found.domains[uuid] for uuid in uuids or found.domains if uuid in found.domains}
        lane.submit(LOOK, look(domains, self._processes.states))

    def _abandon(self, number: int, now: float) -> None:
        for call, known in self._numbers.items():
            if known == number:
                self.link.leave(call.lane, now)
                _LOGGER.warning(
                    "a call into a VM's monitor does not come back: %d of at most %d on this host",
                    self.captives.lost,
                    self.captives.limits.cap,
                )
