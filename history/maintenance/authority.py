"""Which samples count where several nodes report one VM, and where it has a new process: the ownership rule, a column at a time.

The rule is that of ``schemas.ownership``, applied to every sample of an hour. It looks at each node's newest sample up to that moment:

- A node's word holds for three of its intervals (``HOLDS_INTERVALS``), at most half an hour.
- Running counts before paused, paused before gone or incoming; a sample counts when no other node's word that holds is worth more.
- Of nodes that all say gone or incoming, the one where the VM ran last counts while its word holds.
- "Shut off (migrated)" is what a migration leaves behind: it never counts once the VM has run elsewhere.

A VM has a new process on a node when it counts there for the first time, or again after its word there had lapsed or was "shut off", and
ran elsewhere meanwhile. Its hypervisor's counters began at 0 then. Where another node goes on saying that the VM runs there, two VMs
share a UUID: the second one's past is unknown and it is no new process. But where the process on that other node began after the VM last
ran here, the VM has left this node: a new process with an unknown past runs here, whose counters have nothing to do with those read before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from virtflow.schemas import states

MICROSECONDS: Final = 1_000_000
HOLDS_INTERVALS: Final = 3
HOLDS_SECONDS: Final = 1_800.0
"""A node's word holds for so many of its intervals, but for no longer than so many seconds."""
NEVER: Final = np.iinfo(np.int64).min

OWNERSHIP: Final = ("uuid", "node", "boot_id", "sequence", "time", "interval_seconds", "vm_state", "vm_state_reason")
"""The columns of samples by which it is known which of them count."""

_ELSEWHERE, _GONE_OR_INCOMING, _PAUSED, _RUNNING = -1, 0, 1, 2
_LAPSED: Final = -9
_STATES_RUNNING: Final = (states.RUNNING, states.BLOCKED, states.SHUTTING_DOWN)
_STATES_GONE: Final = (states.NO_STATE, states.SHUT_OFF, states.CRASHED)
_SHUT_OFF_MIGRATED: Final = states.REASONS[states.SHUT_OFF].index("migrated")

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found of an hour's samples.

    ``muted`` are the places of samples that do not count; ``starts`` are new processes (uuid, node, ``time`` in Unix microseconds, and
    ``known``: whether their counters began at 0 then, which is not so of another VM with the UUID);
    ``unsettled`` are VMs of which what comes after the hour may show that they have no new process.
    """

    muted: Numbers
    starts: pa.Table
    unsettled: tuple[str, ...] = ()


STARTS: Final = pa.schema([("uuid", pa.string()), ("node", pa.string()), ("time", pa.int64()), ("known", pa.bool_())])
NOTHING: Final = Judgement(np.zeros(0, np.int64), STARTS.empty_table())


@dataclass(frozen=True, slots=True)
class _Words:
    """What the nodes said of VMs that several nodes know, in the order of VM, time and node; times in microseconds."""

    vm: Numbers
    slot: Numbers
    time: Numbers
    holds: Numbers
    worth: Numbers
    after_off: Numbers
    """Whether the node said before that the VM is shut off: then what runs is another process than the last one there."""
    row: Numbers
    """The place among the hour's samples; -1 for what was said before the hour, -2 for what is said after it."""

    def chosen(self, which: Numbers) -> _Words:
        return _Words(*(getattr(self, name)[which] for name in self.__slots__))

    @classmethod
    def ordered(cls, *columns: Numbers) -> _Words:
        vm, slot, time = columns[:3]
        order = np.lexsort((slot, time, vm))
        return cls(*(column[order] for column in columns))


def judge(samples: pa.Table, before: pa.Table | None = None, after: pa.Table | None = None) -> Judgement:
    """Which of the samples of kind vm count, and which processes are new.

    ``samples`` and ``after`` (what came after the hour) have the columns ``OWNERSHIP``; ``before`` are rows of ``counters`` of kind vm, None
    where what was before is not looked at: then who is gone or incoming at first does not count when the VM is seen to run in time.
    """
    shared = _shared(samples, before)
    if not len(shared):
        return NOTHING
    tables = _tables(shared, samples, before, after)
    everything = pa.concat_tables(tables.values(), promote_options="default")
    uuids = everything.column("uuid").combine_chunks().dictionary_encode()
    vm = uuids.indices.to_numpy().astype(np.int64)
    node, names = codes_of(everything.column("node"))
    pairs, pair = np.unique(vm * len(names) + node, return_inverse=True)
    slot = pair - np.searchsorted(pairs, vm * len(names))
    said = _said(everything, vm, slot)
    ran = _ran(tables["before"], vm, slot)
    counts = _counts(said, _ran_before(ran, int(vm.max()) + 1))
    if before is None:
        counts &= ~_soon_runs(said)
    own = said.row >= 0
    counted = _joined(_with_last(said.chosen(own & counts), tables["before"], vm, slot), ran)
    running = _joined(said.chosen(said.worth == _RUNNING), ran)
    new, known, unsettled = _new_processes(counted, running, _began(tables["before"], vm, slot))
    of_new = pairs[np.searchsorted(pairs, new.vm * len(names)) + new.slot] % len(names)
    starts = pa.table(
        [
            uuids.dictionary.take(pa.array(new.vm)),
            names.take(pa.array(of_new)),
            pa.array(new.time, pa.int64()),
            pa.array(known, pa.bool_()),
        ],
        schema=STARTS,
    )
    return Judgement(np.sort(said.row[own & ~counts]), starts, tuple(uuids.dictionary[int(v)].as_py() for v in unsettled))


def not_authoritative(samples: pa.Table) -> pa.Table:
    """The samples of kind vm, with ``OWNERSHIP``, that do not count."""
    return samples.take(pa.array(judge(samples).muted))


def without(samples: pa.Table, muted: pa.Table) -> pa.Table:
    """The samples that are none of ``muted``, devices included."""
    if not muted.num_rows:
        return samples
    keys = ["uuid", "node", "boot_id", "sequence"]
    places = np.flatnonzero(pc.is_in(samples.column("uuid"), muted.column("uuid").unique()).to_numpy())
    gone = set(zip(*(muted.column(name).to_pylist() for name in keys), strict=True))
    of_vms = samples.select(keys).take(pa.array(places))
    kept = np.ones(samples.num_rows, bool)
    kept[places] = [key not in gone for key in zip(*(of_vms.column(name).to_pylist() for name in keys), strict=True)]
    return samples.filter(pa.array(kept))


def holds_for(interval_seconds: Numbers) -> Numbers:
    """For how long, in microseconds, a node's word holds."""
    return np.asarray(np.minimum(HOLDS_INTERVALS * interval_seconds, HOLDS_SECONDS) * MICROSECONDS, np.int64)


def micros(column: pa.ChunkedArray) -> Numbers:
    """Times as Unix microseconds, ``NEVER`` where there is none."""
    return np.asarray(pc.fill_null(column.cast(pa.int64()), NEVER).to_numpy())


def codes_of(column: pa.ChunkedArray) -> tuple[Numbers, pa.Array]:
    """A number for each word, in the order of the words, and the words."""
    encoded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(rank))
    return np.asarray(rank[encoded.indices.to_numpy()]), encoded.dictionary.take(order)


def _shared(samples: pa.Table, before: pa.Table | None) -> pa.Array:
    """The VMs that several nodes know."""
    keys = ["uuid", "node"]
    pairs = [table.select(keys) for table in (samples, before) if table is not None]
    known = pa.concat_tables(pairs).group_by(keys).aggregate([]).group_by("uuid").aggregate([("node", "count")])
    return known.filter(pc.greater(known.column("node_count"), 1)).column("uuid").combine_chunks()


def _tables(shared: pa.Array, samples: pa.Table, before: pa.Table | None, after: pa.Table | None) -> dict[str, pa.Table]:
    """The rows of those VMs alike, with their places."""
    kept = ["uuid", "node", "interval_seconds", "vm_state", "vm_state_reason"]
    extra = ["last_time", "ran_time", "ran_seconds", "since", "past_unknown"]

    def of(table: pa.Table, moment: str, row: Numbers, more: list[str]) -> pa.Table:
        chosen = table.select([*kept, *more])
        chosen = chosen.append_column("at", pa.array(micros(table.column(moment)))).append_column("row", pa.array(row))
        return chosen.filter(pc.is_in(chosen.column("uuid"), shared))

    of_samples = of(samples, "time", np.arange(samples.num_rows), [])
    past = of_samples.slice(0, 0) if before is None else of(before, "claim_time", np.full(before.num_rows, -1), extra)
    tables = {"before": past, "samples": of_samples}
    return tables if after is None else tables | {"after": of(after, "time", np.full(after.num_rows, -2), [])}


def _said(table: pa.Table, vm: Numbers, slot: Numbers) -> _Words:
    holds = holds_for(pc.fill_null(table.column("interval_seconds"), 0.0).to_numpy())
    time = table.column("at").to_numpy()
    off = pc.fill_null(table.column("vm_state"), -1).to_numpy() == states.SHUT_OFF
    by_node = np.lexsort((time, slot, vm))
    before, after_off = by_node[:-1], np.zeros(len(vm), bool)
    after_off[by_node[1:]] = off[before] & (vm[before] == vm[by_node[1:]]) & (slot[before] == slot[by_node[1:]])
    return _Words.ordered(vm, slot, time, holds, _worth(table), after_off, table.column("row").to_numpy())


def _worth(table: pa.Table) -> Numbers:
    """How much each word is worth."""
    state, reason = (pc.fill_null(table.column(name), -1).to_numpy() for name in ("vm_state", "vm_state_reason"))
    incoming = (state == states.PAUSED) & np.isin(reason, (states.PAUSED_MIGRATION, states.PAUSED_STARTING_UP))
    worth = np.full(len(state), _PAUSED)
    worth[np.isin(state, _STATES_RUNNING)] = _RUNNING
    worth[np.isin(state, _STATES_GONE) | incoming] = _GONE_OR_INCOMING
    worth[(state == states.SHUT_OFF) & (reason == _SHUT_OFF_MIGRATED)] = _ELSEWHERE
    return worth


def _ran(before: pa.Table, vm: Numbers, slot: Numbers) -> _Words:
    """Where and when VMs were last said to run before the hour: the first rows of everything are those of ``before``."""
    count = before.num_rows
    if not count or "ran_time" not in before.schema.names:
        return _Words.ordered(*(np.zeros(0, np.int64) for _ in _Words.__slots__))
    time = micros(before.column("ran_time"))
    ran = time != NEVER
    holds = holds_for(pc.fill_null(before.column("ran_seconds"), 0.0).to_numpy())
    worth, after_off, row = np.full(count, _RUNNING), np.zeros(count, bool), np.full(count, -1)
    return _Words.ordered(*(column[ran] for column in (vm[:count], slot[:count], time, holds, worth, after_off, row)))


def _began(before: pa.Table, vm: Numbers, slot: Numbers) -> dict[tuple[int, int], int]:
    """When the process of each VM and node began, where that is known from before the hour and its counters began at 0."""
    if "since" not in before.schema.names:
        return {}
    since, past_known = micros(before.column("since")), before.column("past_unknown").is_null().to_numpy()
    return {(int(vm[at]), int(slot[at])): int(since[at]) for at in np.flatnonzero((since != NEVER) & past_known)}


def _ran_before(ran: _Words, vms: int) -> Numbers:
    """The slot where each VM ran last before the hour, -1 where it is not known to have run."""
    slot = np.full(vms, -1)
    slot[ran.vm] = ran.slot
    return slot


def _counts(said: _Words, ran_before: Numbers) -> Numbers:
    """Which words count."""
    places = np.arange(len(said.vm))
    first = np.maximum.accumulate(np.where(np.append(True, said.vm[1:] != said.vm[:-1]), places, 0))

    def newest(which: Numbers) -> tuple[Numbers, Numbers]:
        place = np.maximum.accumulate(np.where(which, places, -1))
        return np.maximum(place, 0), place >= first

    ran_at, ran = newest((said.worth == _RUNNING) & (said.row >= 0))
    ran_slot = np.where(ran, said.slot[ran_at], ran_before[said.vm])
    best, ran_holds = np.full(len(places), _LAPSED), np.zeros(len(places), bool)
    for slot in range(int(said.slot.max()) + 1):
        at, known = newest(said.slot == slot)
        holds = known & (said.time - said.time[at] <= said.holds[at])
        best = np.maximum(best, np.where(holds, said.worth[at], _LAPSED))
        ran_holds |= holds & (ran_slot == slot)
    here = (ran_slot < 0) | (ran_slot == said.slot)
    unless_elsewhere = np.where(said.worth == _ELSEWHERE, here, here | ~ran_holds)
    return np.asarray((said.worth == best) & ((said.worth > _GONE_OR_INCOMING) | unless_elsewhere))


def _soon_runs(said: _Words) -> Numbers:
    """Which words of gone and incoming VMs, the first of the VM, are followed in time by one that it runs."""
    running = said.worth == _RUNNING
    places = np.arange(len(running))
    following = np.minimum.accumulate(np.where(running, places, len(places))[::-1])[::-1]
    at = np.minimum(following, len(places) - 1)
    soon = (following < len(places)) & (said.vm[at] == said.vm) & (said.time[at] - said.time <= said.holds)
    ran = np.maximum.accumulate(np.where(running, places, -1))
    known = (ran >= 0) & (said.vm[np.maximum(ran, 0)] == said.vm)
    return np.asarray((said.worth <= _GONE_OR_INCOMING) & soon & ~known)


def _with_last(counted: _Words, before: pa.Table, vm: Numbers, slot: Numbers) -> _Words:
    """The samples that count, and the last ones that did before the hour."""
    if "last_time" not in before.schema.names:
        return counted
    time = micros(before.column("last_time"))
    known, count = time != NEVER, before.num_rows
    nothing, row = np.zeros(count, np.int64), np.full(count, -1)
    last = (column[known] for column in (vm[:count], slot[:count], time, nothing, nothing, nothing.astype(bool), row))
    return _joined(counted, _Words(*last))


def _joined(one: _Words, other: _Words) -> _Words:
    return _Words.ordered(*(np.append(getattr(one, name), getattr(other, name)) for name in _Words.__slots__))


def _new_processes(counted: _Words, running: _Words, began: dict[tuple[int, int], int]) -> tuple[_Words, Numbers, list[int]]:
    """The samples that a new process begins with, whether its counters began at 0, and the VMs of which that is not settled yet.

    ``began`` is what is known of processes from before the hour; what is found is added.
    """
    running_words = counted.worth == _RUNNING
    last, last_ran = _last_there(counted), _last_there(counted, running_words)
    lapsed = (last == NEVER) | (counted.time - np.maximum(last, 0) > counted.holds) | counted.after_off
    ran = np.append(-1, np.maximum.accumulate(np.where(running_words, np.arange(len(last)), -1))[:-1])
    elsewhere = (ran >= 0) & (counted.vm[ran] == counted.vm) & (counted.slot[ran] != counted.slot) & (counted.time[ran] > last)
    candidates = np.flatnonzero(elsewhere & lapsed & (counted.row >= 0))
    found: dict[int, bool] = {}
    for at in candidates.tolist():
        vm, slot, time, holds = (int(getattr(counted, name)[at]) for name in ("vm", "slot", "time", "holds"))
        others = _going_on_elsewhere(running, vm, slot, time, holds)
        if not others:
            began[vm, slot], found[at] = time, True
        elif last[at] != NEVER and any(last_ran[at] <= began[vm, other] + holds for other in others if (vm, other) in began):
            began.pop((vm, slot), None)
            found[at] = False
    new, known = counted.chosen(np.array([*found], np.int64)), np.array([*found.values()], bool)
    # Two spans later nothing can show any more that another node went on.
    end = counted.time.max(initial=NEVER)
    return new, known, np.unique(new.vm[known & (new.time + 2 * _longest(running, new) > end)]).tolist()


def _last_there(counted: _Words, which: Numbers | None = None) -> Numbers:
    """When each sample's node counted last before it, with a word of ``which`` where that is given."""
    by_node = np.lexsort((counted.time, counted.slot, counted.vm))
    vm, slot, time = counted.vm[by_node], counted.slot[by_node], counted.time[by_node]
    places = np.arange(len(time))
    of_which = places if which is None else np.where(which[by_node], places, -1)
    before = np.append(-1, np.maximum.accumulate(of_which)[:-1])
    known = (before >= 0) & (vm[before] == vm) & (slot[before] == slot)
    last = np.empty_like(time)
    last[by_node] = np.where(known, time[before], NEVER)
    return last


def _longest(running: _Words, new: _Words) -> Numbers:
    """The longest time that a word of each new process's VM holds."""
    return np.array(
        [max(int(h), int(running.holds[running.vm == v].max(initial=0))) for v, h in zip(new.vm, new.holds, strict=True)], np.int64
    )


def _going_on_elsewhere(running: _Words, vm: int, slot: int, time: int, holds: int) -> list[int]:
    """The other nodes that say without a break that the VM runs there, from before ``time`` until ``holds`` after it."""
    found = []
    of_vm = running.chosen((running.vm == vm) & (running.slot != slot))
    for other in np.unique(of_vm.slot):
        words = of_vm.chosen(of_vm.slot == other)
        at = int(np.searchsorted(words.time, time, "right")) - 1
        if at < 0 or time - words.time[at] > words.holds[at]:
            continue
        breaks = np.flatnonzero(words.time[at + 1 :] - words.time[at:-1] > words.holds[at:-1])
        end = words.time[at + int(breaks[0])] if len(breaks) else words.time[-1]
        if end > time + holds:
            found.append(int(other))
    return found
