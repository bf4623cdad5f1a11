"""The least rights (ACLs) that each part needs on the broker: one table, from which come the page, the command and the test.

Reading or writing a topic includes describing it. Writing includes idempotent writing from Kafka 2.8 on; an older broker wants
IdempotentWrite on the cluster beside it. Source: Kafka's documentation, "Authorization and ACLs".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from virtflow.runtime.settings import Settings
from virtflow.schemas.topics import DEAD_LETTERS, EVENTS, INVENTORY, METRICS, MIGRATIONS, NODES, SNAPSHOTS, TOPICS, Topic

READER_GROUP: Final = "virtflow-reader"
"""The group of commands that read a topic: the client wants a name, nothing is committed under it."""
EXPORTER_GROUP: Final = "virtflow-exporter"
"""The exporter's, for the same reason: its client asks for the group's coordinator."""
ADAPTER_GROUP: Final = "virtflow-adapter"
"""The adapter's, which reads like the exporter."""
READ_BACK_GROUP: Final = "-read-back"
"""Behind the processors' group: the one under which they read migrations at their start."""
UNJOINED: Final = frozenset({EXPORTER_GROUP, ADAPTER_GROUP})
"""Groups whose coordinator is asked for, without joining them or reading what is committed."""


class Part(StrEnum):
    """Who needs rights of its own."""

    PRODUCER = "producer"
    PROCESSORS = "processors"
    EXPORTER = "exporter"
    ADAPTER = "adapter"
    HISTORY = "history"
    TAP = "tap"
    TOPICS = "topics"
    FORGET_NODE = "forget-node"


ABOUT: Final = {
    Part.PRODUCER: "`virtflow producer`, `virtflow simulate`",
    Part.PROCESSORS: "`virtflow processors`",
    Part.EXPORTER: "`virtflow exporter`, `virtflow top --kafka`",
    Part.ADAPTER: "`virtflow adapter`",
    Part.HISTORY: "`virtflow history write`",
    Part.TAP: "`virtflow tap`, `virtflow migrations`",
    Part.TOPICS: "`virtflow topics create`, `virtflow topics list`",
    Part.FORGET_NODE: "`virtflow forget-node`",
}
"""The commands of each part."""


class Resource(StrEnum):
    """Kafka's kinds of what a right is about."""

    TOPIC = "topic"
    GROUP = "group"


class Operation(StrEnum):
    """Kafka's operations, by the names that its own tools take."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


@dataclass(frozen=True, slots=True)
class Acl:
    """One right: what may be done with what; ``name`` is the name on the broker, with the topics' prefix."""

    part: Part
    resource: Resource
    name: str
    operation: Operation


PROCESSED: Final = (SNAPSHOTS, EVENTS)
RESULTS: Final = (METRICS, INVENTORY, NODES, MIGRATIONS, DEAD_LETTERS)
EXPORTED: Final = (METRICS, INVENTORY, MIGRATIONS, NODES)
KEPT: Final = (METRICS, EVENTS, MIGRATIONS, INVENTORY)
FORGOTTEN: Final = (INVENTORY, MIGRATIONS, NODES)
"""What a compacted topic keeps of a node, for ever."""

Rights = tuple[tuple[Operation, tuple[Topic, ...]], ...]

_TOPICS: Final[dict[Part, Rights]] = {
    Part.PRODUCER: ((Operation.WRITE, (SNAPSHOTS, EVENTS)),),
    Part.PROCESSORS: (
        (Operation.READ, (*PROCESSED, MIGRATIONS, NODES)),
        (Operation.WRITE, RESULTS),
        (Operation.DESCRIBE_CONFIGS, TOPICS),
    ),
    Part.EXPORTER: ((Operation.READ, EXPORTED),),
    Part.ADAPTER: ((Operation.READ, EXPORTED),),
    Part.HISTORY: ((Operation.READ, KEPT), (Operation.DESCRIBE_CONFIGS, KEPT)),
    Part.TAP: ((Operation.READ, TOPICS),),
    Part.TOPICS: ((Operation.CREATE, TOPICS), (Operation.DESCRIBE, TOPICS), (Operation.DESCRIBE_CONFIGS, TOPICS)),
    Part.FORGET_NODE: ((Operation.READ, FORGOTTEN), (Operation.WRITE, FORGOTTEN)),
}
_GROUPS: Final[dict[Part, Callable[[Settings], tuple[str, ...]]]] = {
    Part.PROCESSORS: lambda settings: (settings.processors.group, settings.processors.group + READ_BACK_GROUP),
    Part.EXPORTER: lambda _: (EXPORTER_GROUP,),
    Part.ADAPTER: lambda _: (ADAPTER_GROUP,),
    Part.HISTORY: lambda settings: (settings.history.group,),
    Part.TAP: lambda _: (READER_GROUP,),
    Part.FORGET_NODE: lambda _: (READER_GROUP,),
}


def acls(settings: Settings, *parts: Part) -> Iterator[Acl]:
    """Every right that the parts need, with these settings' names."""
    for part in parts:
        for operation, topics in _TOPICS[part]:
            for topic in topics:
                yield Acl(part, Resource.TOPIC, settings.topics.prefix + topic.name, operation)
        groups = _GROUPS.get(part)
        for group in groups(settings) if groups is not None else ():
            yield Acl(part, Resource.GROUP, group, Operation.DESCRIBE if group in UNJOINED else Operation.READ)


def topics_of(part: Part) -> tuple[Topic, ...]:
    """The topics that a part uses, in their table's order."""
    used = {topic for _, topics in _TOPICS[part] for topic in topics}
    return tuple(topic for topic in TOPICS if topic in used)


def reads_settings(part: Part) -> bool:
    """Whether a part reads the topics' settings before it begins."""
    return any(operation is Operation.DESCRIBE_CONFIGS for operation, _ in _TOPICS[part])
