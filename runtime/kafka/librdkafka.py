"""librdkafka's Python client without the package around it.

``import confluent_kafka`` loads asyncio, ssl and sixty modules more for serializers that virtflow has no use for: 10 MB and 30 ms in a producer
that needs three classes (measured: 9.8 MB against 2.4 MB for the extension alone). So the extension module is loaded by its own name,
which needs no package; whoever imports the package later, here or in a library, finds all of it, with the same classes.

What the client does wrong is mended here as well.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

PACKAGE: Final = "confluent_kafka"
EXTENSION: Final = f"{PACKAGE}.cimpl"

_LOGGER: Final = logging.getLogger(__name__)


def _extension() -> ModuleType:
    """The extension module; raises ``ModuleNotFoundError`` where the package is not installed."""
    if loaded := sys.modules.get(EXTENSION):
        return loaded
    package = find_spec(PACKAGE)  # finds it; only an import would run its code
    spec = PathFinder.find_spec(EXTENSION, package.submodule_search_locations) if package is not None else None
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    extension = module_from_spec(spec)
    sys.modules[EXTENSION] = extension
    spec.loader.exec_module(extension)
    return extension


_client = _extension()
KafkaError: Final = _client.KafkaError
KafkaException: Final = _client.KafkaException
Producer: Final = _client.Producer


def ended(error: Any) -> bool:  # noqa: ANN401, the extension has no types
    """Whether an error says that its client is of no more use.

    A producer's ``poll`` raises the fatal error itself, once, and only that one says ``fatal()``. From then on ``produce`` raises the code
    ``_FATAL``, as does a consumer in the place of a message; delivery reports of what was under way have other codes.
    """
    return bool(error.fatal() or error.code() == KafkaError._FATAL)  # noqa: SLF001, the client's own name


def take_reports(producer: Any, seconds: float) -> bool:  # noqa: ANN401, the extension has no types
    """Call the callbacks of the delivery reports that arrive within ``seconds``; False where an error has ended the client: replace it."""
    try:
        producer.poll(seconds)
    except KafkaException as error:
        _LOGGER.warning("the Kafka client cannot go on, another one takes its place: %s", error.args[0].str())
        return False
    return True


def describe_topics(client: Any, topics: Iterable[str], seconds: float) -> dict[str, Any]:  # noqa: ANN401, an AdminClient
    """``describe_topics`` of an ``AdminClient`` that may be called for ever: a future for each topic.

    The client never lets go of the id in an answer (confluent-kafka 2.16: a reference is not given back), which are 100 bytes for
    each topic and call. It looks the ids' class up by name, so here the same id is the same object.
    """
    package = import_module(PACKAGE)
    package.Uuid = _topic_id  # type: ignore[attr-defined]
    found: dict[str, Any] = client.describe_topics(package.TopicCollection(list(topics)), request_timeout=seconds)
    return found


@cache
def _topic_id(**bits: int) -> Any:  # noqa: ANN401, the extension's own class
    """The id of those bits: as many as there are topics, and as were made anew."""
    return _client.Uuid(**bits)
