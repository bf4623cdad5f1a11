"""What asking the guests' agents costs: CPU per VM and cycle on the hypervisor, and per VM-sample on the data's way.

On the hypervisor: a real libvirtd with guests that have booted, whose agents are programs that answer at once, so that nothing but
the asking is measured; the same host without the option is taken off. Needs root and the lab's packages.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.hops import BEGAN, ROUNDS, VMS, cpu_us, new_fleet
from bench.part import Asked, origin
from bench.stuck import PORT, READY_SECONDS
from tests.support.agent_program import AgentProgram
from tests.support.command import PROGRAM
from tests.support.lab import GuestSpec, Lab, Node, await_true
from tests.support.lab_process import children_of
from tests.support.lab_scrape import Scrape, try_scrape
from tools.documents import table
from virtflow.processors.normalise import normalise_snapshot
from virtflow.producer.simulator.service import Fleet, SimulatedNode
from virtflow.schemas.avro.codec import Codec
from virtflow.schemas.records import NodeSnapshot, VmMetrics

GUESTS: Final = 4
CYCLE_SECONDS: Final = 1.0
CYCLES: Final = 20
COMMAND: Final = "guest-get-host-name"
SIZE: Final = "bytes a VM in a snapshot"
TICK: Final = os.sysconf("SC_CLK_TCK")
"""A unit of /proc/PID/stat's CPU times, as a part of a second."""


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used; 0 for process 0, which is none."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def hypervisor(folder: Path) -> dict[str, Any]:
    """CPU in milliseconds per VM and cycle: of the helper process, of what the producer does more, and of libvirtd."""
    with ExitStack() as stack:
        node = stack.enter_context(Lab(nodes=1)).nodes[0]
        guests = [node.start_guest(GuestSpec(f"told-{number}", agent="relay"), wait=False) for number in range(GUESTS)]
        for guest in guests:
            node.await_up(guest)
        agents = [stack.enter_context(AgentProgram(guest.uuid, node.disks)) for guest in guests]
        without = _watched(node, folder, agents, asking=False)
        asked = _watched(node, folder, agents, asking=True)
    seconds, cycles = asked["seconds"], asked["answers"]
    more = {name: asked[name] - without[name] / without["seconds"] * seconds for name in ("producer", "libvirtd")}
    return {
        "guests": GUESTS,
        "cycle_seconds": CYCLE_SECONDS,
        "cycles": round(cycles / GUESTS, 1),
        "calls_per_cycle": round(asked["calls"] / cycles, 1),
        "milliseconds": {name: round(1000 * used / cycles, 2) for name, used in {"apart": asked["apart"], **more}.items()},
        "apart_resident_mib": round(asked["resident"] / 2**20, 1),
    }


def _watched(node: Node, folder: Path, agents: list[AgentProgram], *, asking: bool) -> dict[str, float]:
    """CPU seconds of the processes while some cycles pass; without asking, while as much time does."""
    command = [str(PROGRAM), "node", "--listen", f"0.0.0.0:{PORT}", "--interval", "1"]
    settings = {"VIRTFLOW_GUEST_ENABLED": str(asking).lower(), "VIRTFLOW_GUEST_CYCLE_SECONDS": str(CYCLE_SECONDS)}
    process = node.spawn(command, folder / "node.log", settings)
    address = f"{node.address}:{PORT}"
    wanted = GUESTS if asking else 0
    await_true(
        lambda: _answering(try_scrape(address)) == (GUESTS, wanted), READY_SECONDS, "all VMs are shown, and their agents where asked"
    )
    apart = children_of(process.pid)[0] if asking else 0
    pids = {"producer": process.pid, "apart": apart, "libvirtd": node.libvirtd.pid}
    rounds, before = _rounds(address), {name: cpu_seconds(pid) for name, pid in pids.items()}
    asked, calls = _count(agents, COMMAND), sum(sum(agent.commands().values()) for agent in agents)
    await_true(lambda: _rounds(address) - rounds >= CYCLES * CYCLE_SECONDS, 10 * CYCLES * CYCLE_SECONDS, "some cycles pass")
    used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    used |= {"seconds": _rounds(address) - rounds, "answers": _count(agents, COMMAND) - asked}
    used |= {"calls": sum(sum(agent.commands().values()) for agent in agents) - calls}
    used["resident"] = int(Path(f"/proc/{apart}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") if apart else 0
    process.stop()
    return used


def _answering(seen: Scrape | None) -> tuple[int, int]:
    """VMs that are shown, and those of them whose agents answer."""
    if seen is None:
        return 0, 0
    return len(seen.uuids()), sum(name == "vm_guest_agent_up" and value == 1 for (name, _), value in seen.series.items())


def _rounds(address: str) -> float:
    """Rounds of a second each that the producer has made."""
    seen = try_scrape(address)
    return next((value for (name, _), value in seen.series.items() if name == "virtflow_node_rounds_total"), 0.0) if seen else 0.0


def _count(agents: list[AgentProgram], command: str) -> int:
    return sum(agent.commands()[command] for agent in agents)


def pipeline() -> dict[str, dict[str, float]]:
    """CPU in microseconds per VM-sample of each hop of the centre, without what guests told and with it."""
    return {name: _hops(guests=guests) for name, guests in (("without", False), ("with", True))}


def _hops(*, guests: bool) -> dict[str, float]:
    codec = Codec()
    node = SimulatedNode(Fleet(1, VMS, 10.0, 300.0, 1, guests=guests), "node-1", "boot")
    snapshots = [node.round_at(number, BEGAN + 10 * number) for number in range(ROUNDS)]
    encoded = [codec.encode(snapshot) for snapshot in snapshots]
    samples = [sample for snapshot in snapshots for sample in normalise_snapshot(snapshot).metrics]
    messages = [codec.encode(sample) for sample in samples]
    count = len(samples)
    return {
        SIZE: round(sum(map(len, encoded)) / count, 0),
        "encode snapshot": cpu_us(lambda: [codec.encode(snapshot) for snapshot in snapshots], count),
        "decode snapshot": cpu_us(lambda: [codec.decode(each, NodeSnapshot) for each in encoded], count),
        "normalise": cpu_us(lambda: [normalise_snapshot(snapshot) for snapshot in snapshots], count),
        "encode metrics": cpu_us(lambda: [codec.encode(sample) for sample in samples], count),
        "exporter: decode": cpu_us(lambda: [codec.decode(each, VmMetrics) for each in messages], count),
        "exporter: ingest and render": median(_ingest(samples) for _ in range(5)),
    }


def _ingest(samples: list[VmMetrics]) -> float:
    """CPU of taking the samples after the first round, with whatever is rendered of them."""

    def rest() -> None:
        for sample in samples[VMS:]:
            fleet.take_metrics(sample, 0.0)
        fleet.render()

    fleet = new_fleet()
    for sample in samples[:VMS]:
        fleet.take_metrics(sample, 0.0)
    fleet.render()
    return cpu_us(rest, len(samples) - VMS, 1)


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    hops = {name: {hop: round(cost, 2) for hop, cost in found.items()} for name, found in pipeline().items()}
    return {"hypervisor": hypervisor(asked.folder), "pipeline": hops}


def section(found: dict[str, Any]) -> list[str]:
    """The part of the page."""
    host, hops = found["hypervisor"], found["pipeline"]
    used = host["milliseconds"]
    words = {"apart": "the helper process", "producer": "the producer, more than without", "libvirtd": "libvirtd, more than without"}
    return [
        "## Asking the guests' agents",
        origin(found, "scripts/bench guest"),
        (
            f"{host['guests']} guests of a real libvirtd, each asked {host['calls_per_cycle']:g} agent commands a cycle, over {host['cycles']:g} cycles of "
            f"{host['cycle_seconds']:g} s; the default cycle is 60 s. The helper process takes {host['apart_resident_mib']:g} MiB."
        ),
        table(("CPU per VM and cycle", "ms"), [(words[name], f"{used[name]:.2f}") for name in words]),
        (
            "What guests told, on the data's way: simulated VMs with two to four addresses and one or two filesystems each, in every sample; a VM takes "
            f"{hops['with'][SIZE]:.0f} bytes of a snapshot instead of {hops['without'][SIZE]:.0f}."
        ),
        table(
            ("hop", "µs per VM-sample without", "with"),
            [(hop, f"{cost:.1f}", f"{hops['with'][hop]:.1f}") for hop, cost in hops["without"].items() if hop != SIZE],
        ),
    ]
