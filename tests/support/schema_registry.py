"""A stand-in for a schema registry: the documented API as far as we use it, over real HTTP.

It speaks Confluent's protocol (POST /subjects/SUBJECT/versions, GET /schemas/ids/ID) and nothing else; tests count its requests and stop
it. That a real registry speaks the same is held by tests/integration/test_real_registry.py.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from virtflow.schemas.avro.schema import Schema

MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
NOT_FOUND: Final = {"error_code": 40403, "message": "Schema not found"}
STOP_SECONDS: Final = 0.02
"""How long a server may take to notice that it is to stop."""


class SchemaRegistry:
    """A registry on a loopback port; ``with`` serves it. ``subjects`` holds what was registered, ``asked`` every request's path."""

    def __init__(self, schemas: dict[int, Schema] | None = None, port: int = 0) -> None:
        """``schemas`` are known from the start, by id; port 0 takes a free one."""
        self.by_id = {number: json.dumps(schema) for number, schema in (schemas or {}).items()}
        self.subjects: dict[str, int] = {}
        self.asked: list[str] = []
        self.failing = 0
        """The status that every request is answered with; 0 while it is well."""
        self.elsewhere = ""
        """The address that every request is sent on to; "" where it is answered here."""
        self.slow = threading.Event()
        """Set: answers wait until it is cleared, or the client has gone."""
        self.serving = False
        self.password = ""
        """USER:PASSWORD that has to be sent; "" where none has."""
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Serves."""
        self.serving = True
        threading.Thread(target=self._server.serve_forever, args=(STOP_SECONDS,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stops."""
        self.serving = False
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to a request; ``body`` is what was posted."""
        path = path.partition("?")[0]
        parts = path.strip("/").split("/")
        with self._lock:
            self.asked.append(path)
            if self.failing:
                return self.failing, {"error_code": self.failing * 100, "message": "broken"}
            match parts:
                case ["subjects", subject, "versions"]:
                    return 200, {"id": self._register(subject, body["schema"])}
                case ["schemas", "ids", number] if int(number) in self.by_id:
                    return 200, {"schema": self.by_id[int(number)]}
                case _:
                    return 404, NOT_FOUND

    def _register(self, subject: str, schema: str) -> int:
        number = next((number for number, known in self.by_id.items() if known == schema), len(self.by_id) + 1)
        self.by_id[number] = schema
        self.subjects[subject] = number
        return number


def _handler_of(registry: SchemaRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            while registry.slow.is_set() and registry.serving:
                time.sleep(0.02)
            wanted = "Basic " + base64.b64encode(registry.password.encode()).decode() if registry.password else ""
            allowed = not wanted or self.headers.get("Authorization") == wanted
            status, found = registry.answer(self.path, body) if allowed else (401, {"message": "no"})
            data = json.dumps(found).encode()
            self.send_response(307 if registry.elsewhere else status)
            if registry.elsewhere:
                self.send_header("Location", registry.elsewhere + self.path)
            self.send_header("Content-Type", MEDIA_TYPE)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the library's name
            del format, args

    return Handler
