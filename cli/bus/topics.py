"""``virtflow topics``: makes the topics, and says whether those on the broker are right."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import click

from virtflow.cli.click_parts import CommandGroup, Word
from virtflow.cli.output.say import say, say_json
from virtflow.cli.output.table import print_table
from virtflow.cli.parts import part
from virtflow.cli.switches import KAFKA, json_switch, settings_of, settings_switches
from virtflow.runtime.config_files import part_of
from virtflow.runtime.kafka.acls import Part, acls
from virtflow.runtime.settings import Settings

ACLS: Final = (*KAFKA, "topics.prefix")
"""The switches of ``topics acls`` that are settings."""


@click.group(cls=CommandGroup)
def topics() -> None:
    """Make and inspect the topics."""


@topics.command()
@settings_switches(*KAFKA, "topics.partitions", "topics.replication", "topics.prefix")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_switch
def create(settings: Settings, *, dry_run: bool, as_json: bool) -> int:
    """Make the topics that are missing. One that is there is never changed; exit code 1 says that one of them is wrong.

    \b
    Examples:
      virtflow topics create --dry-run
      virtflow topics create --bootstrap-servers kafka1:9092 --partitions 12 --replication 3
    """  # noqa: D301, click's own mark for lines that are kept
    admin = _admin(settings)
    states = admin.states()
    made = {state.name for state in admin.create(states, dry_run=dry_run)}
    sizes = {"partitions": settings.topics.partitions, "replication": settings.topics.replication}
    word = "would be made" if dry_run else "made"
    told = []
    for state in states:
        if state.name in made:
            told.append({"topic": state.name, "action": word, "cleanup": state.topic.cleanup.value, **sizes, "problem": "", "fix": ""})
        else:
            told.append({"topic": state.name, "action": "there already", **_found(state)})
    _print(told, ("topic", "action", "partitions", "cleanup", "problem", "fix"), as_json=as_json)
    return int(any(one["problem"] for one in told))


@topics.command("list")
@settings_switches(*KAFKA, "topics.prefix")
@json_switch
def list_topics(settings: Settings, *, as_json: bool) -> int:
    """Print every topic's state on the broker; exit code 1 when one is missing or wrong.

    \b
    Examples:
      virtflow topics list
      virtflow topics list --json | jq -r '.[] | select(.problem != "") | .topic'
    """  # noqa: D301, click's own mark for lines that are kept
    told = [{"topic": state.name, "exists": state.exists, **_found(state)} for state in _admin(settings).states()]
    _print(told, ("topic", "partitions", "cleanup", "problem", "fix"), as_json=as_json)
    return int(any(one["problem"] for one in told))


@topics.command("acls")
@settings_switches(*ACLS)
@click.option(
    "--for", "parts", multiple=True, type=click.Choice([part.value for part in Part]), help="Only what this service needs; may be repeated."
)
@click.option("--principal", type=Word(), default="", metavar="User:NAME", help="Who gets the rights, as the brokers name them.")
@click.option("--host", default="*", show_default=True, metavar="ADDRESS", help="The address they connect from.")
@click.option("--apply", "wanted", is_flag=True, help="Give the rights, as a user that may alter the cluster.")
@json_switch
def show_acls(settings: Settings, *, parts: tuple[str, ...], wanted: bool, as_json: bool, **who: str) -> None:
    """Print the rights (ACLs) that each part needs on the broker, the least with which it works; --apply gives them.

    \b
    Examples:
      virtflow topics acls
      virtflow topics acls --for exporter --principal User:virtflow-exporter --apply --config /etc/virtflow/admin.toml
    """  # noqa: D301, click's own mark for lines that are kept
    principal = who["principal"]
    if wanted and not (parts and principal.partition(":")[2]):
        raise click.UsageError("--apply needs --for PART, and --principal TYPE:NAME as in User:virtflow-exporter")
    # A part's groups are named in its own file, while the user that gives the rights is this command's.
    least = [acl for one in parts or Part for acl in acls(settings_of(part_of(one), *ACLS), Part(one))]
    if wanted:
        _admin(settings).allow(least, principal, who["host"])
    told = [
        {"for": str(acl.part), "resource": str(acl.resource), "name": acl.name, "operation": str(acl.operation), **who} for acl in least
    ]
    if as_json:
        say_json(told)
        return
    names = ["for", "resource", "name", "operation", *(["principal", "host"] if principal else [])]
    print_table([name.upper() for name in names], [[one[name] for name in names] for one in told])
    if wanted:
        say("", f"{principal} has these rights now")


def _admin(settings: Settings) -> Any:  # noqa: ANN401, an object of a module that is imported when it is called
    # What the client says of a broker that is away is told once, by us.
    logging.getLogger("virtflow.kafka").addHandler(logging.NullHandler())
    logging.getLogger("virtflow.kafka").propagate = False
    return part("virtflow.runtime.kafka.topic_admin", "producer").TopicAdmin(settings)


def _found(state: Any) -> dict[str, Any]:  # noqa: ANN401, as above
    fix = state.fix if state.problem else ""
    return {"partitions": state.partitions, "cleanup": state.cleanup, "problem": state.problem, "fix": fix}


def _print(told: Sequence[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        say_json(told)
        return
    shown = [name for name in columns if name not in {"problem", "fix"} or any(one[name] for one in told)]
    rows = [[str(one[name]) for name in shown] for one in told]
    print_table([name.upper() for name in shown], rows, right=frozenset({shown.index("partitions")}))
