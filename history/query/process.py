"""The process that asks one SELECT of strangers' making: within its memory, and killed by its parent when its time is over."""

from __future__ import annotations

import io
import signal
import sys
from contextlib import suppress
from typing import Final

import pyarrow as pa

from virtflow.history.query.ipc import ASKING, PIECE_BYTES, Asking, Began, Done, Failed, FromProcess, Rows, Shape
from virtflow.history.query.limits import too_much_memory
from virtflow.history.query.sql import Query
from virtflow.history.storage.delta import Store
from virtflow.runtime.process.child import address_space_bytes, die_with, limit_memory, own_output
from virtflow.runtime.process.frames import encoded, write
from virtflow.schemas.errors import InputError, SettingError

THREADS: Final = 4
WORK_BYTES: Final = 256 << 20
"""Address space beyond the query's memory: stacks and arenas of threads, and the answer on its way out."""


class Out(io.RawIOBase):
    """A pipe that takes frames, and bytes as frames of them."""

    def __init__(self, number: int) -> None:
        """The pipe's descriptor."""
        super().__init__()
        self._number = number

    def send(self, frame: FromProcess) -> None:
        """Writes a complete frame."""
        write(self._number, encoded(frame))

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object) -> int:
        """Sends bytes, in pieces."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        for start in range(0, len(view), PIECE_BYTES):
            self.send(Rows(bytes(view[start : start + PIECE_BYTES])))
        return len(view)


def answer(asking: Asking, out: Out) -> None:
    """Asks, and sends the answer as it comes."""
    with Query(Store(asking.history, asking.project), asking.history) as query:
        out.send(Began())
        schema, batches = query.stream(asking.sql, text=asking.shape is Shape.TEXT)
        with pa.ipc.new_stream(pa.PythonFile(out, mode="w"), schema) as stream:
            for batch in batches:
                stream.write_batch(batch)
    out.send(Done())


def main() -> None:
    """Answers one query; the argument is the parent's process id."""
    die_with(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent kills it
    out = Out(own_output())
    asking = next(ASKING.received(sys.stdin.buffer), None)
    if asking is None:
        return
    pa.set_cpu_count(min(pa.cpu_count(), THREADS))
    limit_memory(address_space_bytes() + WORK_BYTES + asking.history.query_memory_bytes)
    with suppress(BrokenPipeError):
        try:
            answer(asking, out)
        except SettingError as error:
            parts = {"origin": error.origin, "key": error.key, "value": str(error.value), "why": error.why, "fix": error.fix}
            out.send(Failed(str(error), parts))
        except InputError as error:
            out.send(Failed(str(error)))
        except MemoryError as error:
            out.send(Failed(too_much_memory(str(error) or "the system gives no more")))


if __name__ == "__main__":
    main()
