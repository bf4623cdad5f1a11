"""Schema ids from a Confluent-compatible schema registry, where one is configured.

All messages of a topic have the same framing. Without a registry they carry the schema's fingerprint, with one its schema id, from the
first message on: writers wait until the ids are known, from the registry or from the file of an earlier run. Readers never treat "no
answer" as "unknown id". A registry that is away does not prevent a start.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from virtflow.runtime.secrets import plain_url
from virtflow.runtime.settings import Registry, Settings
from virtflow.schemas.avro.encoder import reframed
from virtflow.schemas.avro.writers_generated import FINGERPRINTS
from virtflow.schemas.errors import RegistryUnavailableError
from virtflow.schemas.records import RECORDS
from virtflow.schemas.topics import TOPICS

if TYPE_CHECKING:
    from virtflow.runtime.registry.client import RegistryClient
    from virtflow.schemas.avro.schema import Schema

RETRY_SECONDS: Final = 2.0
UNKNOWN_SECONDS: Final = 60.0
"""How long an id that the registry does not know is taken for unknown, so that garbage does not become requests."""
AWAY_SECONDS: Final = 1.0
"""How long a registry that did not answer is not asked again by readers."""
UNKNOWN_IDS: Final = 10_000
FOREIGN_SCHEMAS: Final = 200
"""Schemas of others that are kept on disk."""
STOP_SECONDS: Final = 1.0
"""How long stopping waits for a request under way; the thread ends with the process."""

T = TypeVar("T")

_LOG: Final = logging.getLogger("virtflow.registry")
_FINGERPRINTS: Final = {kind.__name__: fingerprint.hex() for kind, fingerprint in FINGERPRINTS.items()}


class SchemaIds:
    """The ids of our schemas, loaded in the background, and foreign schemas, fetched when a message with an unknown id arrives.

    An ``Encoder`` reads ``ids`` for every message. Without a URL it stays empty, and nothing is imported or connected.
    """

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing yet."""
        self._registry = settings.registry
        self._prefix = settings.topics.prefix
        self._cache = _Cache(settings.registry)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._client: RegistryClient | None = None
        self._unknown: dict[int, float] = {}
        self._asked_in_vain = float("-inf")
        self._on_known: list[Callable[[], None]] = []
        self.ids: dict[str, int] = {}
        self.away = ""
        """Why the registry gave no answer to the last question, "" when it did."""

    @property
    def missing(self) -> str:
        """What a writer must wait for; "" once all ids are known."""
        if not self._registry.url or len(self.ids) == len(RECORDS):
            return ""
        return self.away or f"the schema registry {plain_url(self._registry.url)} has not answered yet"

    def connect(self) -> None:
        """Makes ``fetch`` ask the registry, all that a reader needs; raises ``SettingError`` where it can't be asked with these settings."""
        if self._registry.url:
            from virtflow.runtime.registry.client import RegistryClient

            self._client = RegistryClient(self._registry)
            self.ids.update(self._cache.load(self._client.url))

    def start(self) -> None:
        """``connect``, and registers our schemas in the background."""
        self.connect()
        if self._client is None:
            return
        self._thread = threading.Thread(target=self._register_until_done, name="registry", daemon=True)
        self._thread.start()

    def when_known(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` from another thread once the ids are known."""
        self._on_known.append(callback)

    def framed(self, message: bytes) -> bytes | None:
        """Reframes a message for the topic: unchanged without a registry, with the schema id otherwise, None while the id is unknown."""
        return reframed(message, self.ids) if self._registry.url else message

    def stop(self) -> None:
        """Ends the background work."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def fetch(self, schema_id: int) -> Schema | None:
        """The schema of an id; None where the registry does not know it, or none is configured.

        Raises ``RegistryUnavailableError`` where the registry does not answer: the schema may exist or not.
        """
        if self._client is None:
            return None
        if (known := self._own(schema_id) or self._cache.schemas.get(schema_id)) is not None:
            return known
        now = time.monotonic()
        if now - self._unknown.get(schema_id, -UNKNOWN_SECONDS) < UNKNOWN_SECONDS:
            return None
        if self.away and now - self._asked_in_vain < AWAY_SECONDS:
            raise RegistryUnavailableError(self.away)
        schema = self._asked(lambda client: client.schema(schema_id))
        if schema is not None:
            self._cache.keep_schema(schema_id, schema)
            return schema
        if len(self._unknown) >= UNKNOWN_IDS:
            self._unknown.clear()
        self._unknown[schema_id] = now
        return None

    def _asked(self, question: Callable[[RegistryClient], T]) -> T:
        assert self._client is not None
        try:
            answer = question(self._client)
        except RegistryUnavailableError as error:
            self.away, self._asked_in_vain = str(error), time.monotonic()
            raise
        self.away = ""
        return answer

    def _own(self, schema_id: int) -> Schema | None:
        """One of our own current schemas, by the id that the registry has given it."""
        if schema_id not in self.ids.values():
            return None
        from virtflow.schemas.avro.shipped import current_schemas

        return next(schema for schema in current_schemas() if self.ids.get(str(schema["name"])) == schema_id)

    def _register_until_done(self) -> None:
        while not self._over.is_set():
            try:
                self._register()
            except RegistryUnavailableError as error:
                waits = "messages wait for their ids" if self.missing else "the ids of an earlier start are used"
                _LOG.warning("%s; %s", error, waits)
                self._over.wait(RETRY_SECONDS)
            else:
                return

    def _register(self) -> None:
        from virtflow.schemas.avro.shipped import current_schemas

        found = {}
        for schema in current_schemas():
            name = str(schema["name"])
            for subject in self._subjects(schema):
                found[name] = self._asked(lambda client, subject=subject, schema=schema: client.register(subject, schema))  # type: ignore[misc]
        changed = {name for name, number in self.ids.items() if found.get(name) != number}
        if changed:
            _LOG.warning("the schema registry has other ids than at the last start for %s", ", ".join(sorted(changed)))
        self.ids.update(found)
        _LOG.info("the schema registry %s knows our schemas", plain_url(self._registry.url))
        self._cache.keep_ids(self.ids)
        for callback in self._on_known:
            callback()

    def _subjects(self, schema: Mapping[str, Any]) -> list[str]:
        if self._registry.subjects == "record":
            return [f"{schema['namespace']}.{schema['name']}"]
        return [f"{self._prefix}{topic.name}-value" for topic in TOPICS if topic.record == schema["name"]]


class _Cache:
    """File cache of the registry's answers: our ids, each with the schema's fingerprint, and foreign schemas by id."""

    def __init__(self, registry: Registry) -> None:
        state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        self._path = Path(registry.cache_file) if registry.cache_file else Path(state, "registry.json") if state else None
        self._url = ""
        self._ids: dict[str, int] = {}
        self.schemas: dict[int, Schema] = {}

    def load(self, url: str) -> dict[str, int]:
        """The ids that this registry assigned to our current schemas; empty where the file is missing, unreadable, or of another registry."""
        self._url = url
        try:
            found = json.loads(self._path.read_text("utf-8")) if self._path else {}
            if found.get("url") != url:
                return {}
            self.schemas = {int(number): dict(schema) for number, schema in found["schemas"].items()}
            ids = {name: int(number) for name, (number, mark) in found["ids"].items() if _FINGERPRINTS.get(name) == mark}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _LOG.warning("what the schema registry told before can't be read from %s: %s", self._path, error)
            return {}
        self._ids = ids if len(ids) == len(RECORDS) else {}
        return dict(self._ids)

    def keep_ids(self, ids: dict[str, int]) -> None:
        """Stores our ids in the file."""
        self._ids = dict(ids)
        self._write()

    def keep_schema(self, schema_id: int, schema: Schema) -> None:
        """Stores a foreign schema in the file, up to a bounded number."""
        if len(self.schemas) < FOREIGN_SCHEMAS:
            self.schemas[schema_id] = schema
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        ids = {name: (number, _FINGERPRINTS[name]) for name, number in self._ids.items()}
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"url": self._url, "ids": ids, "schemas": self.schemas}), "utf-8")
            part.replace(self._path)
        except OSError as error:
            _LOG.warning("what the schema registry told is not kept for a start without it: %s", error)
