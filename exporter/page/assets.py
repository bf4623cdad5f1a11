"""The style sheets, the scripts and the icon: files of this package, read once, with ETags made of their content."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """A file's bytes, its content type and its ETag."""

    body: bytes
    kind: str
    tag: str


@cache
def assets() -> dict[str, Asset]:
    """All files by their paths; those of others are in ``vendor/``."""
    folder = resources.files("virtflow.exporter.page").joinpath("static")
    found = {}
    for prefix, place in (("", folder), ("vendor/", folder.joinpath("vendor"))):
        for file in place.iterdir():
            kind = TYPES.get(file.name[file.name.rfind(".") :])
            if kind is not None:
                body = file.read_bytes()
                found[f"{prefix}{file.name}"] = Asset(body, kind, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
    return found
