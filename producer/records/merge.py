"""Which of libvirt's answers a round exports of a VM: pure, and ordered by when each call began.

The safe call lists every VM. A monitor answer is used once, in the round it arrives in. Where a VM has none, calls that never wait
(``info``, ``vcpus``) fill in its CPU time, memory and vCPUs; a monitor answer that comes later is then older than what was exported,
and must not take those values back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from virtflow.producer.records.vm_snapshot import Reading
from virtflow.producer.types import Answer, Verdict, Vm
from virtflow.schemas.states import SHUT_OFF

CPU_TIME: Final = "cpu.time"
STATE: Final = "state.state"
RESIDENT: Final = "balloon.rss"
READS: Final = ".rd.reqs"
RESPONSIVE: Final = "monitor.responsive"
PROBED: Final = "monitor.probed"
NEVER: Final = float("-inf")


_FINE: Final[dict[str, object]] = {PROBED: 1, RESPONSIVE: 1}
_STATE: Final = ("state.",)
_SAFE: Final = (*_STATE, "net.")


@dataclass(slots=True)
class Exported:
    """When the calls began (monotonic seconds) whose values each VM exported last; VMs that are gone are forgotten."""

    monitor: dict[str, float] = field(default_factory=dict)
    fill: dict[str, float] = field(default_factory=dict)

    def keep(self, uuids: Mapping[str, Vm]) -> None:
        """Forget all VMs but these."""
        for known in (self.monitor, self.fill):
            for uuid in known.keys() - uuids.keys():
                del known[uuid]

    def usable(self, uuid: str, answer: Answer | None) -> bool:
        """Whether a monitor answer is newer than the one exported."""
        return answer is not None and answer.began > self.monitor.get(uuid, NEVER)

    def needs_fill(self, vm: Vm, answer: Answer | None) -> bool:
        """Whether the calls that never wait have to be made: without a monitor answer, or with one older than the fill that was exported."""
        if answer is None or not self.usable(vm.uuid, answer):
            return True
        if vm.data.get(STATE) == SHUT_OFF:
            return False
        return CPU_TIME not in answer.data or answer.began <= self.fill.get(vm.uuid, NEVER)


def monitor_groups(data: dict[str, object], *, interfaces: bool = False) -> dict[str, object]:
    """What a late call for all groups said, without the safe ones, which the round has asked for again; ``interfaces`` are none of these."""
    return {key: value for key, value in data.items() if not key.startswith(_STATE if interfaces else _SAFE)}


def newest(answers: Mapping[str, Answer], more: Mapping[str, Answer]) -> dict[str, Answer]:
    """Of each VM the answer whose call began later."""
    found = dict(answers)
    if not more:
        return found
    for uuid, answer in more.items():
        if uuid not in found or found[uuid].began < answer.began:
            found[uuid] = answer
    return found


def reading(vm: Vm, answer: Answer | None, fill: Answer | None, verdict: Verdict, exported: Exported) -> Reading:
    """The VM's reading of this round; ``exported`` learns what it exports."""
    data, monitor, own = vm.data, None, _own(vm, verdict)
    if answer is not None and exported.usable(vm.uuid, answer):
        monitor = answer
        exported.monitor[vm.uuid] = answer.began
    if monitor is not None and monitor.data is data:
        data.update(own)  # one call brought it all, for this round alone: a copy of every VM's data would be a tenth of the round's price
    elif monitor is not None:
        data = data | (_without_times(monitor.data) if exported.fill.get(vm.uuid, NEVER) >= monitor.began else monitor.data) | own
    else:
        data = data | own
    if fill is not None:
        data = data | fill.data
        exported.fill[vm.uuid] = fill.began
    if monitor is None or not answered(monitor.data):
        return Reading(vm.uuid, vm.name, data)
    return Reading(vm.uuid, vm.name, data, monitor.started)


def _own(vm: Vm, verdict: Verdict) -> dict[str, object]:
    """What the producer itself found out about the VM's monitor; nothing of a VM that is shut off, which has none."""
    if vm.data.get(STATE) == SHUT_OFF:
        return {}
    if verdict.responsive:
        return _FINE
    probed: dict[str, object] = {PROBED: int(verdict.probed)}
    return probed if verdict.responsive is None else {**probed, RESPONSIVE: int(verdict.responsive)}


def answered(data: dict[str, object]) -> bool:
    """Whether the VM's QEMU had a part in a monitor answer.

    A call that does not wait for a VM whose job lock is taken still tells what libvirt itself knows of it. These fields are
    reported only by a call that held the lock (source: libvirt's ``qemuDomainGetStatsBalloon`` and ``qemuDomainGetStatsBlock``).
    """
    return RESIDENT in data or "block.0.rd.reqs" in data or any(key.endswith(READS) for key in data)


def _without_times(data: dict[str, object]) -> dict[str, object]:
    """An older answer without the counters of which a fill has exported newer values."""
    return {key: value for key, value in data.items() if key != CPU_TIME and not (key.startswith("vcpu.") and key.endswith(".time"))}


def of_info(info: Sequence[int], *, running: bool) -> dict[str, object]:
    """The answer of ``info()`` under the keys of the bulk call: (state, maximum memory KiB, memory KiB, vCPUs, CPU time ns)."""
    _, maximum, current, count, cpu_time = info
    data: dict[str, object] = {"balloon.maximum": maximum, "balloon.current": current, "vcpu.current": count}
    return data | {CPU_TIME: cpu_time} if running else data


def of_vcpus(vcpus: Iterable[tuple[int, int, int, int]]) -> dict[str, object]:
    """The first half of the answer of ``vcpus()`` under the keys of the bulk call: (number, state, CPU time ns, CPU) of each."""
    data: dict[str, object] = {}
    for number, state, time, _ in vcpus:
        data[f"vcpu.{number}.state"] = state
        data[f"vcpu.{number}.time"] = time
    return data
