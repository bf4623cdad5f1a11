"""``virtflow tap``: a topic's records as they pass, decoded, for people and for ``jq``."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from virtflow.cli.click_parts import Word
from virtflow.cli.output.record_text import as_json, clock, line
from virtflow.cli.output.say import say
from virtflow.cli.parts import part
from virtflow.cli.switches import KAFKA, json_switch, settings_switches
from virtflow.cli.top.vm_names import VmName
from virtflow.runtime.registry.schema_ids import SchemaIds
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import Reason, RegistryUnavailableError, UndecodableError
from virtflow.schemas.records import RECORDS, NodeSnapshot, Record, VmMigration
from virtflow.schemas.topics import TOPICS, Topic

if TYPE_CHECKING:
    from confluent_kafka import Message

    from virtflow.schemas.avro.codec import Codec

KEY_LENGTH, HEADER_LENGTH = 80, 1_000
"""Characters that are shown of what anybody may write."""
READ_SECONDS: Final = 0.5
UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BY_NAME: Final = {topic.name.removeprefix("vm."): topic for topic in TOPICS}
_TYPES: Final = {record.__name__: record for record in RECORDS}


class TopicName(click.ParamType):
    """A topic by its name, with or without the ``vm.`` that all of them begin with."""

    name = "TOPIC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Topic:  # noqa: ANN401, click's signature
        """The topic's row."""
        if isinstance(value, Topic):
            return value
        if value.removeprefix("vm.") not in BY_NAME:
            self.fail(f"{value!r} is none of {', '.join(BY_NAME)}", param, ctx)
        return BY_NAME[value.removeprefix("vm.")]

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The topics whose names begin so."""
        del ctx, param
        return [CompletionItem(name) for name in BY_NAME if name.startswith(incomplete)]


class Start(click.ParamType):
    """A time in Unix seconds from ``beginning``, ``10m`` (so long ago) or a date and time."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401, click's signature
        """Unix seconds; minus infinity for the beginning."""
        if isinstance(value, float):
            return value
        if value == "beginning":
            return float("-inf")
        if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value):
            return time.time() - float(ago[1]) * UNITS[ago[2]]
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            self.fail(f"{value!r} is no time: write beginning, 10m, or 2026-11-24T22:00", param, ctx)


@click.command()
@click.argument("topic", type=TopicName(), metavar="[" + "|".join(BY_NAME) + "]", required=False)
@settings_switches(*KAFKA, "topics.prefix")
@click.option("--vm", type=VmName(), metavar="NAME|UUID", default="", help="The VM, by name or UUID.")
@click.option("--node", "on_node", type=Word(), metavar="NAME", default="", help="Only records from or about this node.")
@click.option(
    "--from",
    "start",
    type=Start(),
    default=float("inf"),
    metavar="TIME|beginning",
    help="Where to begin: a time, or so long ago (10m, 7d).",
)
@click.option("--count", type=click.IntRange(min=1), default=None, metavar="NUMBER", help="End after so many records.")
@json_switch
def tap(settings: Settings, topic: Topic | None, **chosen: Any) -> None:  # noqa: ANN401, click's values
    """Print a topic's records as they pass, decoded; until Ctrl-C.

    \b
    Examples:
      virtflow tap events
      virtflow tap events --vm web-1 --from 10m
      virtflow tap migrations --from beginning --json | jq 'select(.record.result == "failed")'
    """  # noqa: D301, click's own mark for lines that are kept
    if topic is None:
        raise click.UsageError(f"name a topic: {', '.join(BY_NAME)}")
    wanted = _filter(chosen["vm"], chosen["on_node"])
    show = _json if chosen["as_json"] else _text
    codec, left = reading_codec(settings), chosen["count"]
    with reading(settings, topic, chosen["start"]) as reader:
        while left is None or left > 0:
            for message in reader.read(READ_SECONDS):
                record = _decoded(codec, topic, message)
                if (isinstance(record, UndecodableError) or record is None or wanted(record)) and (left is None or left > 0):
                    say(show(message, record))
                    left = None if left is None else left - 1


def reading(settings: Settings, topic: Topic, start: float = float("-inf")) -> Any:  # noqa: ANN401, a class that is imported when it is called
    """A reader of the topic from ``start`` (Unix seconds) on; the client's own log is silenced, since an unreachable broker is reported as our error."""
    logging.getLogger("virtflow.kafka").addHandler(logging.NullHandler())
    logging.getLogger("virtflow.kafka").propagate = False
    return part("virtflow.runtime.kafka.topic_reader", "producer").TopicReader(settings, topic, start)


def reading_codec(settings: Settings) -> Codec:
    """A codec that fetches unknown schemas from the schema registry, where one is configured."""
    ids = SchemaIds(settings)
    ids.connect()
    codec: Codec = part("virtflow.schemas.avro.codec", "exporter").Codec(fetch=ids.fetch)
    return codec


def _filter(vm: str, node: str) -> Callable[[Record], bool]:
    def wanted(record: Record) -> bool:
        if node and node not in _nodes(record):
            return False
        return not vm or vm in _names(record)

    return wanted


def _nodes(record: Record) -> tuple[str, ...]:
    return (record.source, record.destination) if isinstance(record, VmMigration) else (record.node,)


def _names(record: Record) -> set[str]:
    if isinstance(record, NodeSnapshot):
        return {name for vm in record.vms for name in (vm.uuid, vm.name)}
    return {getattr(record, "uuid", ""), getattr(record, "name", "")}


def _decoded(codec: Codec, topic: Topic, message: Message) -> Record | UndecodableError | None:
    """The record, why there is none, or None for a tombstone and for a dead letter, whose bytes are nobody's record."""
    value = message.value()
    if value is None or not topic.record:
        return None
    try:
        return codec.decode(value, _TYPES[topic.record])
    except UndecodableError as error:
        return error
    except RegistryUnavailableError as error:
        return UndecodableError(Reason.UNKNOWN_SCHEMA, str(error))


def _headers(message: Message) -> dict[str, str]:
    found: Any = message.headers() or []
    return {name: (value or b"").decode("utf-8", "replace") for name, value in found}


def _json(message: Message, record: Record | UndecodableError | None) -> str:
    envelope: dict[str, Any] = {
        "time": message.timestamp()[1] / 1000,
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "key": (message.key() or b"").decode("utf-8", "replace"),
    }
    if isinstance(record, UndecodableError):
        envelope["undecodable"] = str(record)
    elif record is not None:
        envelope["record"] = as_json(record)
    elif headers := _headers(message):
        envelope["headers"] = headers
    else:
        envelope["deleted"] = True
    return json.dumps(envelope)


def _text(message: Message, record: Record | UndecodableError | None) -> str:
    when = clock(message.timestamp()[1] / 1000)
    if isinstance(record, UndecodableError):
        return f"{when}  undecodable: {record}"
    if record is not None:
        return f"{when}  {line(record)}"
    key = (message.key() or b"").decode("utf-8", "replace")
    headers = " ".join(f"{name}={value}"[:HEADER_LENGTH] for name, value in _headers(message).items())
    return f"{when}  {key[:KEY_LENGTH]}  {headers or 'deleted'}"
