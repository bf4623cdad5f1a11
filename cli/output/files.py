"""Files that commands write: whole, or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

DEVICES: Final = ("/dev/", "/proc/")


@contextmanager
def replacing(output: Path) -> Iterator[IO[bytes]]:
    """A file that takes ``output``'s place when everything is written; where something fails, ``output`` stays as it was.

    Pipes and devices, which have no place to take, are written directly. Raises ``OSError``.
    """
    if str(output).startswith(DEVICES) or (output.exists() and not output.is_file()):
        with output.open("wb") as out:
            yield out
        return
    target = output.resolve()
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    try:
        with open(number, "wb") as out:  # noqa: PTH123, a descriptor
            yield out
            os.fchmod(out.fileno(), _mode_of(target))
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _mode_of(target: Path) -> int:
    """The rights of the file that is replaced, or those that a new file has."""
    with suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
