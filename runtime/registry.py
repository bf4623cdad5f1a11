"""Schema ids from a Confluent-compatible schema registry, where one is configured.

The registry is needed for one thing only: a number for each schema, so that any Avro tool can read the topics. Nobody waits for
it: until it has answered, messages carry the schema's fingerprint instead, which our own readers know without any registry.
Source of the protocol: Confluent's schema registry API (POST /subjects/SUBJECT/versions, GET /schemas/ids/ID).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from virtflow.runtime.settings import Registry
from virtflow.schemas.avro.shipped import shipped_schemas
from virtflow.schemas.errors import EnvironmentProblemError
from virtflow.schemas.records import RECORDS

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

    from virtflow.schemas.avro.schema import Schema

RETRY_SECONDS: Final = 10.0
UNKNOWN_SECONDS: Final = 60.0
"""How long an id that the registry could not resolve is taken for unknown, so that garbage does not become requests."""
UNKNOWN_IDS: Final = 10_000
STOP_SECONDS: Final = 1.0
"""How long stopping waits for a request under way; the thread ends with the process."""
NOT_FOUND: Final = 404

_LOG: Final = logging.getLogger("virtflow.registry")


class SchemaIds:
    """The ids of our schemas, filled in the background, and the schemas of others' ids, fetched when one is met.

    ``ids`` is what a ``Codec`` reads at every message: it grows while the service runs. Without a URL it stays empty and
    nothing is imported or connected.
    """

    def __init__(self, registry: Registry) -> None:
        """Connects to nothing yet."""
        self._registry = registry
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._client: SchemaRegistryClient | None = None
        self._unknown: dict[int, float] = {}
        self.ids: dict[str, int] = {}

    def connect(self) -> None:
        """Makes ``fetch`` ask the registry, all that a reader needs; raises ``EnvironmentProblemError`` where the client is not installed."""
        if self._registry.url:
            self._client = _client(self._registry)

    def start(self) -> None:
        """``connect``, and registers our schemas in the background."""
        self.connect()
        if self._client is None:
            return
        self._thread = threading.Thread(target=self._register_until_done, name="registry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the background work and the connections."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        if self._client is not None:
            self._client.close()

    def fetch(self, schema_id: int) -> Schema | None:
        """The schema of an id; None where the registry does not know it, does not answer, or none is configured."""
        if self._client is None or time.monotonic() - self._unknown.get(schema_id, -UNKNOWN_SECONDS) < UNKNOWN_SECONDS:
            return None
        try:
            text = self._client.get_schema(schema_id).schema_str
            schema: Any = json.loads(text or "null")
        except _failures() as error:
            _LOG.warning("the schema registry %s does not resolve id %d: %s", self._registry.url, schema_id, error)
            schema = None
        if isinstance(schema, dict):
            return schema
        if len(self._unknown) >= UNKNOWN_IDS:
            self._unknown.clear()
        self._unknown[schema_id] = time.monotonic()
        return None

    def _register_until_done(self) -> None:
        while not self._over.is_set():
            if self._register():
                return
            self._over.wait(RETRY_SECONDS)

    def _register(self) -> bool:
        from confluent_kafka.schema_registry import Schema as Registered

        assert self._client is not None
        try:
            for _, schema in shipped_schemas()[: len(RECORDS)]:
                subject = f"{schema['namespace']}.{schema['name']}"
                found = self._client.register_schema(subject, Registered(json.dumps(schema), "AVRO"))
                self.ids[str(schema["name"])] = found
        except _failures() as error:
            _LOG.warning("the schema registry %s did not take our schemas, messages carry fingerprints: %s", self._registry.url, error)
            return False
        _LOG.info("the schema registry %s knows our schemas", self._registry.url)
        return True


def _failures() -> tuple[type[Exception], ...]:
    """What the client raises when the registry refuses, does not answer, or answers nonsense; its HTTP library has changed its name."""
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    try:
        from httpx2 import HTTPError
    except ImportError:
        from httpx import HTTPError  # type: ignore[import-not-found,no-redef]
    return SchemaRegistryError, HTTPError, ValueError


def _client(registry: Registry) -> SchemaRegistryClient:
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient
    except ImportError as error:
        raise EnvironmentProblemError(
            thing="schema registry",
            value=registry.url,
            why=f"its client is not installed ({error.name})",
            fix="pip install virtflow[registry]",
        ) from error
    return SchemaRegistryClient({"url": registry.url, "timeout": registry.timeout_seconds, "max.retries": 0})
