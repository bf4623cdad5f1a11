"""A history server that answers what a test says: Prometheus' range queries over HTTP, or refusals, nonsense, or nothing at all."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

SECONDS: Final = 60.0

Asked = dict[str, str]
Answer = tuple[int, bytes]


def matrix(asked: Mapping[str, str], value: Callable[[int], float | None]) -> Answer:
    """One series with a value at each point that ``value`` has one for."""
    times = range(int(asked["start"]), int(asked["end"]) + 1, int(asked["step"]))
    pairs = [[at, str(found)] for at in times if (found := value(at)) is not None]
    result: list[dict[str, Any]] = [{"metric": {}, "values": pairs}] if pairs else []
    return 200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


class HistoryDouble:
    """The server: what it was asked, and what it answers from now on."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        """``answer`` is called in a thread of its own for each question."""
        self.answer = answer
        self.asked: list[Asked] = []
        self.headers: list[Mapping[str, str]] = []
        self.hangs = False
        self.over: Final = threading.Event()
        self.held: Final = threading.Semaphore(0)
        """Released once for each question that hangs."""
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked = dict(urllib.parse.parse_qsl(body))
                double.asked.append(asked | {"path": self.path})
                double.headers.append(dict(self.headers.items()))
                if double.hangs:
                    double.held.release()
                    double.over.wait(SECONDS)
                    return
                status, answer = double.answer(asked)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                with suppress(BrokenPipeError):  # who asked has given up
                    self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the library's own name
                """Says nothing."""

        self.server: Final = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url: Final = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def history_double(answer: Callable[[Asked], Answer]) -> Iterator[HistoryDouble]:
    """The double while it serves."""
    double = HistoryDouble(answer)
    thread = threading.Thread(target=double.server.serve_forever)
    thread.start()
    try:
        yield double
    finally:
        double.over.set()
        double.server.shutdown()
        thread.join(SECONDS)
        double.server.server_close()
