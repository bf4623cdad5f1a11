"""``virtflow forget-node``: takes a host that is gone for good, and the VMs that went with it, out of the compacted topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import click

from virtflow.cli.bus.newest import Kept, key_of, learn
from virtflow.cli.bus.tap import reading, reading_codec
from virtflow.cli.click_parts import Word
from virtflow.cli.output.record_text import clock
from virtflow.cli.output.say import say, say_json
from virtflow.cli.parts import part
from virtflow.cli.switches import KAFKA, json_switch, settings_switches
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.order import INTERVALS_ALIVE
from virtflow.schemas.records import NodeStatus, VmInventory, VmMigration
from virtflow.schemas.topics import INVENTORY, MIGRATIONS, NODES, Topic

if TYPE_CHECKING:
    from virtflow.schemas.avro.codec import Codec

READ_SECONDS: Final = 1.0
SHOWN: Final = 20


@click.command("forget-node")
@click.argument("name", type=Word(), metavar="NAME")
@settings_switches(*KAFKA, "topics.prefix")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_switch
def forget_node(settings: Settings, name: str, *, dry_run: bool, as_json: bool) -> int:
    """Forget a host that is gone for good: its health, and the inventory and last migration of the VMs that were on it to the end.

    A host that still reports is refused. VMs that have moved to another host are kept, and so is the history. Exit code 1: nothing is
    known of the host.

    \b
    Examples:
      virtflow forget-node hypervisor-7 --dry-run
      virtflow forget-node hypervisor-7
    """  # noqa: D301, click's own mark for lines that are kept
    codec = reading_codec(settings)
    status = newest(settings, NODES, NodeStatus, codec, lambda key: key == name).get(name)
    if status is not None:
        _refuse_living(status, time.time())
    vms = {uuid: one for uuid, one in newest(settings, INVENTORY, VmInventory, codec).items() if one.node == name}
    moved = newest(settings, MIGRATIONS, VmMigration, codec, vms.__contains__)
    dead: list[tuple[Topic, str]] = [(NODES, name)] if status is not None else []
    dead += [(INVENTORY, uuid) for uuid in vms] + [(MIGRATIONS, uuid) for uuid in moved]
    if not dry_run:
        part("virtflow.runtime.kafka.tombstones", "producer").bury(settings, dead)
    if as_json:
        found = {"node": name, "known": status is not None, "vms": sorted(vms), "migrations": sorted(moved), "forgotten": not dry_run}
        say_json(found)
    else:
        _tell(name, status, vms, dry_run=dry_run)
    return int(not dead)


def newest(
    settings: Settings, topic: Topic, record: type[Kept], codec: Codec, wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Kept]:
    """The newest record of each key that is wanted, from the topic's beginning to its end; without those that can't be decoded.

    A node's record is by its name in the key, a VM's by its UUID. Raises ``EnvironmentProblemError`` where the topic can't be read.
    """
    known: dict[str, Kept] = {}
    with reading(settings, topic) as reader:
        while not reader.caught_up:
            learn(
                known,
                (message for message in reader.read(READ_SECONDS) if wanted(key_of(message))),
                codec,
                record,
                f"a message of {topic.name}, key",
            )
    return known


def _refuse_living(status: NodeStatus, now: float) -> None:
    if now < status.collected + INTERVALS_ALIVE * status.interval:
        why = f"reported at {clock(status.collected)}, and every {status.interval:g} s"
        fix = f"stop its producer, and wait for {INTERVALS_ALIVE * status.interval:g} s"
        raise EnvironmentProblemError(thing="node", value=status.node, why=why, fix=fix)


def _tell(name: str, status: NodeStatus | None, vms: Mapping[str, VmInventory], *, dry_run: bool) -> None:
    if status is None and not vms:
        say(f"Nothing is known of a node {name}.")
        return
    since = f", which reported last at {clock(status.collected)}" if status is not None else ""
    say(f"{'Would forget' if dry_run else 'Forgot'} {name}{since}, and {len(vms)} VM{'' if len(vms) == 1 else 's'}.")
    for uuid in sorted(vms, key=lambda uuid: (vms[uuid].name, uuid))[:SHOWN]:
        say(f"  {uuid}  {vms[uuid].name}")
    if len(vms) > SHOWN:
        say(f"  and {len(vms) - SHOWN} more; --json names all of them")
