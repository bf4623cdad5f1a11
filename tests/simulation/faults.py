"""What goes wrong, and when: a list that follows from the seed, can be shortened, and is carried out by the world.

Each fault begins at a time and ends by itself, so that all of them are over when the world is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError
from msgspec import Struct

from tests.simulation.machine import BEGINS

if TYPE_CHECKING:
    from tests.simulation.world import World

ACTIVE_SECONDS: Final = 60.0
"""For so long faults begin."""
LONGEST_SECONDS: Final = 15.0
"""A fault that lasts is over after that."""
MOST: Final = 12
"""Faults of one seed."""
TOPICS: Final = ("vm.snapshots", "vm.events", "vm.metrics", "vm.inventory", "vm.migrations", "vm.nodes")
REFUSALS: Final = (
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_LEADER_FOR_PARTITION,
)


class Fault(Struct, frozen=True):
    """One fault: its kind, when it begins (seconds after the start), what it hits, how long it lasts, and how much."""

    kind: str
    at: float
    target: str = ""
    seconds: float = 0.0
    amount: int = 0

    def __str__(self) -> str:
        """In a line."""
        lasts = f" for {self.seconds:.2f} s" if self.seconds else ""
        amount = f" ({self.amount})" if self.amount else ""
        return f"{self.at:7.3f} s  {self.kind} {self.target}{lasts}{amount}"


def plan(seed: int, processes: tuple[str, ...]) -> list[Fault]:
    """The faults of a seed, in the order of time, for a world with these programs."""
    dice = Random(f"faults {seed}")  # noqa: S311, reproducible on purpose
    kinds = list(KINDS)
    # Some worlds have a few kinds of faults, and many of them; a kill is worth most, wherever it comes.
    favoured = ["crash", *dice.sample(kinds, dice.randint(1, len(kinds)))]
    found = [_one(dice, dice.choice(favoured), processes) for _ in range(dice.randint(0, MOST))]
    return sorted(found, key=lambda fault: fault.at)


def _one(dice: Random, kind: str, processes: tuple[str, ...]) -> Fault:
    """A fault of a kind; every one draws alike, so that what is drawn for one does not depend on the others' kinds."""
    at = round(dice.uniform(1.0, ACTIVE_SECONDS), 3)
    seconds = round(dice.choice((dice.uniform(0.05, 2.0), dice.uniform(2.0, LONGEST_SECONDS))), 3)
    lasts, targets, amount = _SHAPES[kind]
    chosen = [name for name in processes if name.startswith(targets)] or [f"{topic}/{dice.randrange(2)}" for topic in TOPICS]
    if targets == _A_TOPIC:
        chosen = list(TOPICS)
    target = "" if targets == _NOTHING else dice.choice(chosen)
    return Fault(kind, at, target, seconds if lasts else 0.0, amount(dice))


def crash(world: World, fault: Fault) -> None:
    """A process is killed, some steps later; at once where it does not do any."""
    process = world.running.get(fault.target)
    if process is not None and process.alive:
        process.dies_after = fault.amount
        world.kernel.after(5.0, partial(world.kill, process))


def power_cut(world: World, fault: Fault) -> None:
    """A hypervisor loses power: its producer is gone, and what was not on the disk."""
    world.kill(world.running.get(fault.target))
    host = world.hosts[fault.target]
    world.watch.power_cut(host)
    host.disk.lose_power()


def terminate(world: World, fault: Fault) -> None:
    """SIGTERM, and SIGKILL after ten seconds."""
    world.terminate(fault.target)


def freeze(world: World, fault: Fault) -> None:
    """A process does nothing for a while, as when it is stopped or swapped out."""
    process = world.running.get(fault.target)
    if process is not None:
        world.network.freeze(process, fault.seconds)


def cut_off(world: World, fault: Fault) -> None:
    """A host does not reach the broker."""
    host = world.hosts[fault.target]
    world.network.cut(host)
    world.kernel.after(fault.seconds, partial(world.network.mend, host))


def delay(world: World, fault: Fault) -> None:
    """A host's network is slow."""
    host = world.hosts[fault.target]
    host.delay_seconds, before = fault.amount / 1_000, 0.002
    world.kernel.after(fault.seconds, partial(setattr, host, "delay_seconds", before))


def twin(world: World, fault: Fault) -> None:
    """A second process of the same name, on the same host, for a while."""
    world.start_twin(fault.target, fault.seconds)


def broker_down(world: World, fault: Fault) -> None:
    """The broker is away."""
    world.network.stop()
    world.kernel.after(fault.seconds, world.network.start)


def rebalance(world: World, fault: Fault) -> None:
    """A group gives a member up, which did nothing wrong."""
    process = world.running.get(fault.target)
    if process is not None:
        world.network.expire(process)


def duplicates(world: World, fault: Fault) -> None:
    """The broker stores some messages twice."""
    world.network.duplicating = True
    world.kernel.after(fault.seconds, lambda: setattr(world.network, "duplicating", False))


def clock_jump(world: World, fault: Fault) -> None:
    """A host's clock is set."""
    world.hosts[fault.target].clock_error += fault.amount
    world.clocks_jumped.add(fault.target)


def _partition(fault: Fault) -> tuple[str, int]:
    topic, _, number = fault.target.partition("/")
    return topic, int(number)


def retention(world: World, fault: Fault) -> None:
    """All but some records of a partition are deleted, read or not."""
    topic, number = _partition(fault)
    log = world.network.topics[topic].logs[number]
    world.network.truncate(topic, number, max(log.low, log.high - fault.amount))


def lost_end(world: World, fault: Fault, *, elected: bool = False) -> None:
    """A partition's newest records are lost."""
    topic, number = _partition(fault)
    log = world.network.topics[topic].logs[number]
    world.network.lose_end(topic, number, max(log.low, log.high - fault.amount), elected=elected)


def refusal(world: World, fault: Fault) -> None:
    """A topic takes no message for some seconds, as when it has too few replicas."""
    code = Random(fault.at).choice(REFUSALS)  # noqa: S311, reproducible on purpose
    world.network.refusing[fault.target] = world.kernel.now + fault.amount, code


def storage_away(world: World, fault: Fault) -> None:
    """The history's storage does not answer."""
    world.weather.away_until = world.kernel.now + fault.seconds


def storage_slow(world: World, fault: Fault) -> None:
    """It answers late."""
    world.weather.slow_until, world.weather.slow_seconds = world.kernel.now + fault.seconds, fault.amount / 1_000


def storage_mute(world: World, fault: Fault) -> None:
    """It does what it is told, and its answers are lost."""
    world.weather.mute_until = world.kernel.now + fault.seconds


def disk_full(world: World, fault: Fault) -> None:
    """A hypervisor's disk is full."""
    disk = world.hosts[fault.target].disk
    disk.full = True
    world.kernel.after(fault.seconds, lambda: setattr(disk, "full", False))


def disk_broken(world: World, fault: Fault) -> None:
    """A hypervisor's disk confirms nothing."""
    disk = world.hosts[fault.target].disk
    disk.broken = True
    world.kernel.after(fault.seconds, lambda: setattr(disk, "broken", False))


KINDS: Final[dict[str, Callable[[Any, Fault], None]]] = {
    "crash": crash,
    "power cut": power_cut,
    "terminate": terminate,
    "freeze": freeze,
    "partition": cut_off,
    "delay": delay,
    "twin": twin,
    "broker down": broker_down,
    "rebalance": rebalance,
    "duplicates": duplicates,
    "clock jump": clock_jump,
    "retention": retention,
    "lost end": lost_end,
    "election": partial(lost_end, elected=True),
    "refusal": refusal,
    "storage away": storage_away,
    "storage slow": storage_slow,
    "storage mute": storage_mute,
    "disk full": disk_full,
    "disk broken": disk_broken,
}


_ANY: Final = ("",)
_PRODUCERS: Final = ("producer",)
_MEMBERS: Final = ("processors", "history")
_A_TOPIC: Final = ("a topic",)
_A_PARTITION: Final = ("a partition",)
_NOTHING: Final = ("nothing",)


def _none(dice: Random) -> int:
    del dice
    return 0


def _records(dice: Random) -> int:
    return dice.randint(0, 10)


_SHAPES: Final[dict[str, tuple[bool, tuple[str, ...], Callable[[Random], int]]]] = {
    "crash": (False, _ANY, lambda dice: int(dice.expovariate(1 / 30))),
    "power cut": (False, _PRODUCERS, _none),
    "terminate": (False, _ANY, _none),
    "freeze": (True, _ANY, _none),
    "partition": (True, _ANY, _none),
    "delay": (True, _ANY, lambda dice: dice.randint(20, 800)),
    "twin": (True, _ANY, _none),
    "broker down": (True, _NOTHING, _none),
    "rebalance": (False, _MEMBERS, _none),
    "duplicates": (True, _NOTHING, _none),
    "clock jump": (False, _ANY, lambda dice: dice.choice((-1, 1)) * dice.choice((1, 5, 60, 200))),
    "retention": (False, _A_PARTITION, _records),
    "lost end": (False, _A_PARTITION, _records),
    "election": (False, _A_PARTITION, _records),
    "refusal": (False, _A_TOPIC, lambda dice: dice.randint(1, 5)),
    "storage away": (True, _NOTHING, _none),
    "storage slow": (True, _NOTHING, lambda dice: dice.randint(50, 4_000)),
    "storage mute": (True, _NOTHING, _none),
    "disk full": (True, _PRODUCERS, _none),
    "disk broken": (True, _PRODUCERS, _none),
}
"""Of each kind whether it lasts, what it hits, and how much."""


def arrange(world: World, faults: list[Fault]) -> None:
    """Has each fault happen at its time."""
    for fault in faults:
        world.kernel.at(BEGINS + fault.at, partial(world.inject, fault))
