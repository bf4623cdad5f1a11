"""A reading process of `history serve`: works out one request at a time, within a limit of memory, and may be killed at any moment.

It ends with its server. A request that ran out of memory ends it too, after it has said so: what is left of its memory is in pieces.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa

from virtflow.history.remote_read.ipc import (
    PIECE_BYTES,
    TO_PROCESS,
    Begin,
    Done,
    Failed,
    Failure,
    FromProcess,
    Had,
    Head,
    Job,
    Names,
    Piece,
    Read,
    Ready,
    Values,
    Whether,
)
from virtflow.history.remote_read.protocol.counted import ProtocolError
from virtflow.history.remote_read.protocol.wire import Answer, chunk_frames, read_request, samples_answer
from virtflow.history.remote_read.reading.allowance import Allowance, LimitError, TookTooLongError
from virtflow.history.remote_read.reading.labels import wanted_by_all
from virtflow.history.remote_read.reading.reader import Reader, UnknownLabelError
from virtflow.history.storage.delta import Store
from virtflow.runtime import log
from virtflow.runtime.lifecycle import collect_seldom, dump_stacks_on_signal
from virtflow.runtime.process.child import address_space_bytes, die_with, limit_memory, own_output
from virtflow.runtime.process.frames import encoded, write
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import InputError

READERS: Final = 256
"""Tenants whose readers are kept, with what they own."""
THREADS: Final = 4
"""Threads that read Parquet, in each process."""
THREADS_BYTES: Final = 256 << 20
"""Address space beyond a request's memory: stacks and arenas of threads that begin with the first request."""
CANCEL: Final = signal.SIGUSR2
"""Tells the process that nobody waits for its answer any more."""
_KINDS: Final[tuple[tuple[type[BaseException], Failure], ...]] = (
    (TookTooLongError, Failure.LATE),
    (UnknownLabelError, Failure.UNKNOWN_LABEL),
    (ProtocolError, Failure.REFUSED),
    (LimitError, Failure.REFUSED),
    (MemoryError, Failure.MEMORY),
    (InputError, Failure.UNAVAILABLE),
)

_LOG: Final = logging.getLogger("virtflow.history.remote_read.process")


class Process:
    """Works out jobs, one after the other."""

    def __init__(self, settings: Settings, out: int) -> None:
        """Frames are written to ``out``."""
        self._settings = settings
        self._out = out
        self._readers: OrderedDict[str, Reader] = OrderedDict()
        self._allowance = Allowance(settings.history)
        signal.signal(CANCEL, self._cancel)

    def _cancel(self, number: int, frame: object) -> None:
        del number, frame
        self._allowance.cancelled = True

    def send(self, frame: FromProcess) -> None:
        """Writes a complete frame."""
        write(self._out, encoded(frame))

    def do(self, job: Job) -> bool:
        """Sends a job's answer; whether the process can go on."""
        self._allowance = Allowance(self._settings.history, job.seconds)
        try:
            for frame in self._frames(job):
                self._allowance.check()
                self.send(frame)
        except Exception as error:  # noqa: BLE001, the one place: the server tells the client
            failed = self._failed(error)
            self.send(failed)
            return failed.why is not Failure.MEMORY
        self.send(Done())
        pa.default_memory_pool().release_unused()
        return True

    def _failed(self, error: Exception) -> Failed:
        why = next((why for kind, why in _KINDS if isinstance(error, kind)), Failure.DEFECT)
        if why is Failure.MEMORY:
            limit = self._settings.history.serve_memory_bytes
            return Failed(why, f"would take more memory than history.serve_memory_bytes ({limit}) allows; ask for less at once")
        if why is Failure.DEFECT:
            _LOG.error("a request failed, which is a defect", exc_info=error)
            return Failed(why, "this is a defect of virtflow; the server's log has it")
        return Failed(why, str(error))

    def _frames(self, job: Job) -> Iterator[FromProcess]:
        reader = self._reader(job.tenant)
        if isinstance(job, Values):
            yield Names(reader.values(job.label, job.start, job.end, self._allowance)[: job.most])
            return
        if isinstance(job, Had):
            yield Whether(reader.had(job.label, job.value, self._allowance))
            return
        asked = read_request(job.body, self._settings.history.serve_queries)
        results = [reader.read(query, self._allowance) for query in asked.queries]
        chunks = Answer.CHUNKS in asked.accepted
        wanted = [] if any(results) else wanted_by_all(asked.queries)
        yield Head(chunks, len(asked.queries), sum(len(series.times) for result in results for series in result), wanted)
        yield from _pieces(chunk_frames(results) if chunks else (samples_answer(results),))

    def _reader(self, tenant: str) -> Reader:
        """The reader of a tenant's rows, kept for the next time; of all rows where the server knows no tenants ("")."""
        if tenant not in self._readers:
            if len(self._readers) >= READERS:
                self._readers.popitem(last=False)
            self._readers[tenant] = Reader(Store(self._settings.history, tenant), self._settings)
        self._readers.move_to_end(tenant)
        return self._readers[tenant]


def _pieces(frames: Iterable[bytes]) -> Iterator[Piece]:
    """Frames joined, or cut, to pieces that are worth a write."""
    waiting = bytearray()
    for frame in frames:
        waiting += frame
        while len(waiting) >= PIECE_BYTES:
            yield Piece(bytes(waiting[:PIECE_BYTES]))
            del waiting[:PIECE_BYTES]
    if waiting:
        yield Piece(bytes(waiting))


def main() -> None:
    """Works until the server ends; the argument is its process id."""
    die_with(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server ends its processes, and gets these signals itself
    dump_stacks_on_signal()
    collect_seldom()
    out = own_output()
    pa.set_cpu_count(min(pa.cpu_count(), THREADS))
    frames = TO_PROCESS.received(sys.stdin.buffer)
    begin = next(frames, None)
    if not isinstance(begin, Begin):
        return
    log.setup(begin.settings.log.level, begin.settings.log.format)
    limit_memory(address_space_bytes() + THREADS_BYTES + begin.settings.history.serve_memory_bytes)
    process = Process(begin.settings, out)
    process.send(Ready())
    for job in frames:
        if isinstance(job, Read | Values | Had) and not process.do(job):
            return


if __name__ == "__main__":
    main()
