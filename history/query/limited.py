"""One SELECT of strangers' making, asked in a process of its own.

A database's own limits hold for what it counts: a function of one word can take gigabytes, and a plan of thirty lines can take hours, before
either limit is looked at. A process's memory is limited by the kernel, and it can be killed.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Self

from virtflow.history.query.ipc import FROM_PROCESS, Asking, Began, Done, Failed, FromProcess, Rows, Shape
from virtflow.history.query.limits import QueryError, too_long, too_many_bytes, too_much_memory
from virtflow.runtime.process.child import MEASURED_ALLOCATION, command, environment
from virtflow.runtime.process.frames import encoded
from virtflow.runtime.settings import History
from virtflow.schemas.errors import SettingError

if TYPE_CHECKING:
    import pyarrow as pa

for _package in ("duckdb", "deltalake", "pyarrow"):
    if find_spec(_package) is None:  # looked for here, since it is imported in another process
        raise ModuleNotFoundError(f"no {_package}", name=_package)

MODULE: Final = "virtflow.history.query.process"
START_SECONDS: Final = 60.0
"""How long a process may take to be there and to open the tables."""
READ_BYTES: Final = 1 << 18


class Asked:
    """A query that is under way. Use it as a context: its process ends with it."""

    def __init__(self, settings: History, project: str, sql: str, shape: Shape) -> None:
        """Starts the process, which asks at once."""
        self._settings = settings
        place = environment(MEASURED_ALLOCATION)
        self._process = subprocess.Popen(command(MODULE), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=place, bufsize=0)  # noqa: S603, our own module
        self._asking = Asking(settings, project, sql, shape)

    def rows(self) -> pa.Table:
        """The answer; raises ``QueryError`` where there is none within the limits."""
        import pyarrow as pa

        found: list[bytes] = []
        size = 0
        for frame in self._frames():
            match frame:
                case Rows():
                    size += len(frame.data)
                    if size > self._settings.query_bytes:
                        raise QueryError(too_many_bytes(self._settings))
                    found.append(frame.data)
                case Failed():
                    raise SettingError(**frame.setting) if frame.setting else QueryError(frame.text)
                case Done():
                    return pa.ipc.open_stream(pa.py_buffer(b"".join(found))).read_all()
        raise QueryError(too_much_memory(f"its process ended (exit code {self._process.wait()})"))

    def _frames(self) -> Iterator[FromProcess]:
        """The process's frames until it is gone; raises ``QueryError`` when its time is over."""
        pipe, buffer = self._process.stdout, bytearray()
        assert pipe is not None
        self._ask()
        until, why = time.monotonic() + START_SECONDS, f"the tables were not open within {START_SECONDS:g} s"
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise QueryError(why)
                if not (data := os.read(pipe.fileno(), READ_BYTES)):
                    return
                buffer += data
                for frame in FROM_PROCESS.completed(buffer):
                    if isinstance(frame, Began):
                        until, why = time.monotonic() + self._settings.query_seconds, too_long(self._settings)
                    yield frame

    def _ask(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(encoded(self._asking))
            self._process.stdin.close()
        except BrokenPipeError:
            return  # what it said before it ended is still to be read

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Kills the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
