"""A root shell in a guest of the lab, through a channel of its own: what the guest itself says, whatever its agent does."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.lab_guest import channel_path
from tests.support.lab_process import LabError

ANSWER_SECONDS = 60.0
STATUS = "lab-shell-status "


class GuestShell:
    """Runs one command at a time; the guest must have been started with an agent, real or not."""

    def __init__(self, uuid: str, disks: Path) -> None:
        """Connect; the guest may still be booting."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(ANSWER_SECONDS)
            self._socket.connect(str(channel_path(uuid, disks, "lab.shell")))
        except OSError as error:
            self._socket.close()
            raise LabError(f"no shell in {uuid}: {error}") from error
        self._answers = self._socket.makefile("rb")

    def run(self, command: str) -> str:
        """The output of a command, errors included; LabError when it fails, OSError when the guest does not answer."""
        self._socket.sendall(command.encode() + b"\n")
        lines: list[str] = []
        while not (line := self._line()).startswith(STATUS):
            lines.append(line)
        output = "".join(lines)
        if int(line.removeprefix(STATUS)):
            raise LabError(f"in the guest: {command}: {output}")
        return output

    def _line(self) -> str:
        line = self._answers.readline()
        if not line:
            raise LabError("the guest is gone")
        return line.decode(errors="replace")

    def close(self) -> None:
        """Let go of the shell, so that another may be made."""
        self._answers.close()
        self._socket.close()

    def __enter__(self) -> Self:
        """Nothing more: it is connected since it was made."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of it."""
        self.close()
