"""Whether files were written or replaced, without reading them."""

from __future__ import annotations

from pathlib import Path

Signature = tuple[tuple[str, int, int, int], ...]


def signature(files: tuple[Path, ...]) -> Signature:
    """What changes whenever one of the files is written or replaced."""
    found = []
    for path in files:
        try:
            told = path.stat()
        except OSError:
            found.append((str(path), 0, 0, 0))
        else:
            found.append((str(path), told.st_mtime_ns, told.st_ino, told.st_size))
    return tuple(found)
