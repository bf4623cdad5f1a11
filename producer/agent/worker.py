"""The helper process: makes the requested calls and nothing else. It holds no state and may end at any moment.

It has one connection to libvirt, which may write. It ends when that connection is lost, when the producer is gone, or when memory runs out;
the producer then starts another one. Each call has its own thread, because a call may never return.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from types import TracebackType
from typing import Any, Final, NoReturn

from virtflow.producer.agent.failure_reasons import reason_of, reason_of_nothing
from virtflow.producer.agent.ipc import BEAT_SECONDS, Answered, Ask, Beat, Ended, FromProcess, Happened, Reader, Start, Up, encoded
from virtflow.producer.types import UNREADABLE
from virtflow.runtime.process.child import die_with, limit_memory, own_output
from virtflow.runtime.process.frames import write
from virtflow.schemas.guest import GuestReason
from virtflow.schemas.text import printable

IN = 0
READ_BYTES: Final = 65_536
TEXT_LENGTH: Final = 200
STACK_BYTES: Final = 512 * 1024
CALLS: Final = 16
"""Calls under way at most, whatever is asked for."""


class Process:
    """One run of the process: from ``Start`` to its end."""

    def __init__(self, start: Start, out: int) -> None:
        """Begin to connect; frames are written to ``out``."""
        self._start = start
        self._out = out
        self._pipe = threading.Lock()
        self._lock = threading.Lock()
        self._connection: Any = None
        self._calls = 0
        self._begin = time.monotonic()
        threading.Thread(target=self._open, name="open", daemon=True).start()

    def send(self, frame: FromProcess) -> None:
        """Write a complete frame."""
        data = encoded(frame)
        with self._pipe:
            write(self._out, data)

    def end(self, why: str, text: str) -> NoReturn:
        """Report the reason and exit immediately: a normal exit would wait for threads in calls that do not return."""
        try:
            self.send(Ended(why, printable(text, TEXT_LENGTH)))
        finally:
            os._exit(1)

    def serve(self, reader: Reader, data: bytes) -> None:
        """Make the requested calls until the producer is gone."""
        beat = 0.0
        while True:
            for frame in reader.frames(data):
                if isinstance(frame, Ask):
                    self._take(frame)
            if (now := time.monotonic()) >= beat:
                self.send(Beat())
                beat = now + BEAT_SECONDS
            if self._connection is None and now - self._begin > self._start.connect_timeout_seconds:
                self.end("libvirt", f"no answer within {self._start.connect_timeout_seconds:g} s")
            data = b""
            if select.select([IN], [], [], BEAT_SECONDS)[0] and not (data := os.read(IN, READ_BYTES)):
                self._leave()

    def _leave(self) -> NoReturn:
        """The producer has closed the pipe: close the connection, unless a call uses it."""
        with self._lock:
            idle = not self._calls
        if self._connection is not None and idle:
            self._connection.close()
        os._exit(0)

    def _take(self, ask: Ask) -> None:
        with self._lock:
            calls = self._calls
            self._calls += 1
        if calls >= CALLS or self._connection is None:
            self.end("defect", f"{calls} calls are under way, and one more is asked for")
        threading.Thread(target=self._make, args=(ask,), name=ask.command.value, daemon=True).start()

    # -- libvirt

    def _open(self) -> None:
        import libvirt

        from virtflow.producer.agent.queries import commands_of
        from virtflow.producer.hypervisor.connection import start_event_loop

        start_event_loop()
        try:
            connection = libvirt.open(self._start.uri)
            self._keep_alive(connection)
            connection.registerCloseCallback(self._closed, None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._happened, "lifecycle")
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._happened, "agent")
            commands = commands_of(connection)
        except libvirt.libvirtError as error:
            self.end("libvirt", str(error))
        self._connection = connection
        self.send(Up(commands))

    def _keep_alive(self, connection: Any) -> None:  # noqa: ANN401, the binding has no types
        import libvirt

        try:
            connection.setKeepAlive(self._start.keepalive_seconds, self._start.keepalive_count)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # a driver within this process can't be lost
                raise

    def _closed(self, connection: object, reason: int, opaque: object) -> None:
        del connection, opaque
        self.end("libvirt", f"the connection is lost (reason {reason})")

    def _happened(self, connection: object, domain: Any, event: int, detail: int, what: str) -> None:  # noqa: ANN401, libvirt's own callback
        del connection, detail
        self.send(Happened(domain.UUIDString(), what, event))

    def _make(self, ask: Ask) -> None:
        import libvirt

        from virtflow.producer.agent.queries import NothingToldError, NotSafeError, call

        started, begin, found, reason, text = time.time(), time.monotonic(), {}, None, ""
        try:
            found = call(self._connection, self._start, ask.command, ask.uuid)
        except libvirt.libvirtError as error:
            text = printable(str(error), TEXT_LENGTH)
            if not self._connection.isAlive():
                self.end("libvirt", text)
            reason = reason_of(error.get_error_code() or 0, str(error), time.monotonic() - begin, self._start.timeout_seconds)
        except NothingToldError:
            reason = reason_of_nothing(time.monotonic() - begin, self._start.timeout_seconds)
        except NotSafeError:
            reason = GuestReason.BUSY
        except UNREADABLE as error:
            reason, text = GuestReason.MALFORMED, printable(f"{type(error).__name__}: {error}", TEXT_LENGTH)
        with self._lock:
            self._calls -= 1
        self.send(Answered(ask.number, started, time.monotonic() - begin, reason=reason, text=text, **found))


def main() -> None:
    """Run until the producer ends; the argument is its process id."""
    die_with(int(sys.argv[1]))
    out = own_output()
    reader, data, start = Reader(of_process=False), b"", None
    while start is None:
        data = os.read(IN, READ_BYTES)
        if not data:
            return
        frames = list(reader.frames(data))
        start = next((frame for frame in frames if isinstance(frame, Start)), None)
    limit_memory(start.memory_bytes)
    threading.stack_size(STACK_BYTES)
    process = Process(start, out)

    def fatal(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> NoReturn:
        del trace
        process.end("memory" if issubclass(kind, MemoryError) else "defect", f"{kind.__name__}: {error}")

    sys.excepthook = fatal
    threading.excepthook = lambda args: fatal(args.exc_type, args.exc_value, args.exc_traceback)
    process.serve(reader, b"")
