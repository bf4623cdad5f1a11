"""Files that settings name: what is in them, and whether they were written or replaced, without reading them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from virtflow.schemas.errors import SettingError

if TYPE_CHECKING:
    import ssl

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


def text_of(path: str | Path, key: str) -> str:
    """A file's text (UTF-8); raises ``SettingError`` of the setting ``section.key`` that names it where it can't be read."""
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SettingError(origin="settings", key=key, value=str(path), why=why, fix="name a file this user can read") from error


def tls_of(path: str, key: str) -> ssl.SSLContext:
    """TLS that trusts a file's authorities, or the system's where none is named; raises ``SettingError`` as ``text_of`` does."""
    import ssl

    if path:
        text_of(path, key)
    try:
        return ssl.create_default_context(cafile=path or None)
    except ssl.SSLError as error:
        raise SettingError(origin="settings", key=key, value=path, why=str(error), fix="name a file of certificates (PEM)") from error
