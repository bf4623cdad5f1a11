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

from virtflow.producer.hung_calls.breaker import Captives
from virtflow.producer.hung_calls.breaker_types import (
    NEVER,
    Abandon,
    Action,
    Answered,
    Ask,
    Failed,
    Host,
    Limits,
    Look,
    Looked,
    Moved,
    Observation,
    Openings,
    Reconnected,
    RoundBegan,
    Started,
    Ticked,
    Verdict,
)
from virtflow.producer.hypervisor.connection import Lane, Link
from virtflow.producer.hypervisor.mailbox import Call
from virtflow.producer.hypervisor.qemu_processes import Processes
from virtflow.producer.hypervisor.queries import Listed, ask_everyone, ask_monitors, look
from virtflow.producer.records.merge import STATE, Answer, answered, monitor_groups, newest
from virtflow.producer.records.node_health import Lost
from virtflow.runtime.settings import Producer
from virtflow.schemas.states import SHUT_OFF

ASK: Final = "monitor"
LOOK: Final = "look"
PATIENCE_RATIO: Final = 0.2
PATIENCE_SECONDS: Final = (0.25, 2.5)
"""How long a call may stay in one VM, in intervals, and the bounds of that."""

LIST_SHARE: Final = 0.9
"""Part of that after which the VMs are listed without waiting for the call for all groups any longer."""

WARN_ABOVE: Final = 5

_LOGGER: Final = logging.getLogger(__name__)


def limits(settings: Producer) -> Limits:
    """The limits that follow from the settings."""
    least, most = PATIENCE_SECONDS
    interval = settings.interval_seconds
    patience = min(most, max(least, interval * PATIENCE_RATIO))
    return Limits(settings.hung_calls_max, patience, 2 * interval, max(2 * interval, settings.probe_maximum_seconds))


class Monitor:
    """Asks the VMs' monitors as the captives' state allows, and holds the answers until they are collected."""

    def __init__(self, link: Link, safe: Link, settings: Producer, rng: random.Random, processes: Processes | None = None) -> None:
        """``link`` is the tier's own connection; looks, which never wait, go by ``safe``."""
        self.link = link
        self.captives = Captives(limits(settings), rng)
        self.seconds: float | None = None
        """How long the newest call that ended in this round took."""
        if settings.hung_calls_max > WARN_ABOVE:
            _LOGGER.warning(
                "producer.hung_calls_max is %d: from 20 lost calls on libvirtd answers nobody; above %d other clients suffer",
                settings.hung_calls_max,
                WARN_ABOVE,
            )
        self._safe = safe
        self._processes = processes or Processes()
        self._listed: Listed | None = None
        self.whole: Listed | None = None
        """All VMs with all groups, once this round's one call has brought them."""
        self._whole_call: Call | None = None
        self._whole_until = -NEVER
        self._begun = False
        self._wanted: Ask | None = None
        self._numbers: dict[Call, int] = {}
        self._answers: dict[str, Answer] = {}

    # -- the round

    def begin(self, now: float, until: float) -> None:
        """A round begins. While all is well it is one call for all groups of all VMs; else ``listed`` says with which VMs."""
        self.whole, self._whole_call, self._begun, self.seconds = None, None, False, None
        if self.captives.host is Host.CALM and self.captives.settled and self.link.lane is not None and self._listed is not None:
            self._begin(now, until)

    def listed(self, found: Listed, now: float, until: float) -> None:
        """The round's VMs are known: begin to ask, unless that has been done."""
        self._listed = found
        if not self._begun:
            self._begin(now, until)

    def _begin(self, now: float, until: float) -> None:
        self._begun = True
        self._observe(RoundBegan(tuple(self._listed.vms if self._listed else ()), until), now)

    @property
    def whole_until(self) -> float:
        """Until when the round's VMs may be expected of a call for all groups that is under way; in the past when there is none."""
        return self._whole_until if self._whole_call is not None else -NEVER

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

    def end(self) -> None:
        """The round goes out: what a call for all groups says from now on is late."""
        self._whole_call = None

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
            captives.slots.lost,
            captives.limits.cap,
            sum(verdict.responsive is False for verdict in verdicts.values()),
            sum(not verdict.probed for verdict in verdicts.values()),
            dict(captives.probes),
            dict(captives.calls),
            captives.slots.elsewhere,
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

    # -- the cap, for whoever opens a connection

    def openings(self, found: Openings, now: float) -> bool:
        """These connections are being opened; whether one more may be."""
        if found != self.captives.slots.openings:
            self._observe(found, now)
        return self.captives.may_open()

    # -- what arrives

    def take(self, call: Call, now: float) -> None:
        """A call of this tier has come back, in whatever round."""
        number = self._numbers.pop(call, None)
        if number is None:
            return
        current, self._whole_call = call is self._whole_call, None if call is self._whole_call else self._whole_call
        if call.error is not None:
            lost = not call.lane.alive
            if lost:
                self.link.drop(call.lane, now, str(call.error))
            self._observe(Failed(number, lost), now)
            return
        self.seconds = call.seconds
        found: dict[str, dict[str, object]] = call.result if isinstance(call.result, dict) else self._of_all(call.result, current=current)
        answers = {uuid: Answer(data, call.began, call.started) for uuid, data in found.items()}
        self._answers = newest(self._answers, answers) if self._answers else answers
        full = frozenset([uuid for uuid, data in found.items() if answered(data) or self._off(uuid)])
        self._observe(Answered(number, full, found.keys() - full), now)

    def _of_all(self, listed: Listed, *, current: bool) -> dict[str, dict[str, object]]:
        """The answers of a call for all groups; that of the ``current`` round tells its VMs as well."""
        if current:
            self.whole = self._listed = listed
            return {uuid: vm.data for uuid, vm in listed.vms.items()}
        return {uuid: monitor_groups(vm.data) for uuid, vm in listed.vms.items()}

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
        call = lane.submit(ASK, ask_everyone if ask.everyone else ask_monitors(ask.uuids))
        self._numbers[call] = ask.call
        if ask.everyone:
            self._whole_call, self._whole_until = call, now + LIST_SHARE * self.captives.limits.patience
        self._observe(Started(ask.call), now)

    def _look(self, uuids: tuple[str, ...]) -> None:
        lane, found = self._safe.lane, self._listed
        if lane is None or found is None:
            return  # the connection is gone; `reconnected` follows
        lane.submit(LOOK, look(uuids or tuple(found.vms), self._processes.states))

    def _abandon(self, number: int, now: float) -> None:
        for call, known in self._numbers.items():
            if known == number:
                self.link.leave(call.lane, now)
                _LOGGER.warning(
                    "a call into a VM's monitor does not come back: %d of at most %d on this host",
                    self.captives.slots.lost,
                    self.captives.limits.cap,
                )
