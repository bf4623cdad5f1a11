"""Files that settings name: what is in them, and whether they were written or replaced, without reading them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from virtflow.runtime.secrets import plain_url
from virtflow.schemas.errors import SettingError

if TYPE_CHECKING:
    import ssl

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Signature = tuple[tuple[str, int, int, int], ...]


def signature(files: tuple[Path, ...]) -> Signature:
    """What changes whenever one of the files is written or replaced."""
    found = []
    for path in files:
        try:
            told = path.stat()
        except (OSError, ValueError):  # not there, or no path
            found.append((str(path), 0, 0, 0))
        else:
            found.append((str(path), told.st_mtime_ns, told.st_ino, told.st_size))
    return tuple(found)


def text_of(path: str | Path, key: str) -> str:
    """A file's text (UTF-8); raises ``SettingError`` of the setting ``section.key`` that names it where it can't be read."""
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        why, fix = unread(error)
        raise SettingError(origin="settings", key=key, value=plain_url(str(path)), why=why, fix=fix) from error


def unread(error: Exception) -> tuple[str, str]:
    """Why a file can't be read as text, and the fix; without a byte of what is in it, which may be a secret."""
    if isinstance(error, OSError):
        return error.strerror or str(error), "name a file this user can read"
    if isinstance(error, UnicodeDecodeError):
        return f"no text (UTF-8) from byte {error.start} on", "write it as text, in UTF-8"
    return "no path of a file", "name a file this user can read"


def secret_of(path: str | Path, key: str) -> str:
    """The secret that a file holds: its text without the line's end, and without the mark (BOM) that some editors put first.

    Raises ``SettingError`` as ``text_of`` does, and for what no secret is: nothing, several lines, and control characters, which clients
    take in different ways. What is in the file is not repeated.
    """
    text = text_of(path, key).removeprefix("\ufeff").rstrip("\n")
    why = ""
    if not text:
        why = "is empty"
    elif "\n" in text:
        why = f"holds {text.count(chr(10)) + 1} lines"
    elif _CONTROL.search(text):
        why = "holds a control character"
    if why:
        raise SettingError(
            origin="settings", key=key, value=str(path), why=why, fix="write the secret into it, in one line, and nothing else"
        )
    return text


def tls_of(path: str, key: str) -> ssl.SSLContext:
    """TLS that trusts a file's authorities, or the system's where none is named; raises ``SettingError`` as ``text_of`` does."""
    import ssl

    if path:
        text_of(path, key)
    try:
        return ssl.create_default_context(cafile=path or None)
    except ssl.SSLError as error:
        raise SettingError(origin="settings", key=key, value=path, why=str(error), fix="name a file of certificates (PEM)") from error
