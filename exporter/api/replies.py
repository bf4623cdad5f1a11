"""HTTP replies of the API and of the page: JSON, gzipped for those who accept it, ETags, errors."""

from __future__ import annotations

import zlib
from typing import Any, Final

import msgspec
from aiohttp import web
from isal import isal_zlib

from virtflow.exporter.api.endpoints import PREFIX, ErrorAnswer, ErrorBody
from virtflow.exporter.api.parameters import ParameterError
from virtflow.exporter.scrape_cache import GZIP_LEVEL, GZIP_WINDOW, accepts_gzip

JSON_TYPE: Final = "application/json"
GZIP_FROM: Final = 1_024
"""Bytes from which a body is worth packing."""
AGE_SECONDS: Final = 10.0
"""How far ages may be behind in an answer that is said to be unchanged."""


def json_reply(request: web.Request, value: Any, *, status: int = 200, tag: str = "") -> web.Response:  # noqa: ANN401, any struct
    """``value`` as JSON."""
    return packed(request, msgspec.json.encode(value), JSON_TYPE, status=status, tag=tag)


def packed(request: web.Request, body: bytes, kind: str, *, status: int = 200, tag: str = "") -> web.Response:
    """A body of the content type ``kind``, gzipped where that is accepted and worth it; nothing keeps it without asking again."""
    headers = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if tag:
        headers["ETag"] = tag
    if len(body) >= GZIP_FROM and accepts_gzip(request.headers.get("Accept-Encoding", "")):
        body = isal_zlib.compress(body, GZIP_LEVEL, GZIP_WINDOW)
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, status=status, headers=headers, content_type=kind, charset=None if kind == JSON_TYPE else "utf-8")


def error_reply(request: web.Request, error: Exception | str, status: int) -> web.Response:
    """The error as JSON; of a parameter it names parameter, value and what is allowed."""
    body = ErrorBody(message=str(error))
    if isinstance(error, ParameterError):
        body = ErrorBody(message=str(error), parameter=error.parameter, value=error.value, allowed=error.allowed)
    return json_reply(request, ErrorAnswer(error=body), status=status)


async def no_such_path(request: web.Request) -> web.StreamResponse:
    """404 for a path of the API that there is none of, with an error like all others; it says where all paths are."""
    return error_reply(request, f"there is no {request.path[:80]!r}; {PREFIX}/openapi.json names all paths", 404)


def entity_tag(request: web.Request, run: str, *state: object) -> str:
    """A weak ETag: the same request gives the same one until ``state`` changes. ``run`` tells one process from the next."""
    words = "-".join(map(str, state))
    return f'W/"{run}-{words}-{zlib.crc32(request.path_qs.encode()):08x}"'


def unchanged(request: web.Request, tag: str) -> bool:
    """Whether the client has the answer with this ETag (source: RFC 9110, section 13.1.2)."""
    held = [word.strip() for word in request.headers.get("If-None-Match", "").split(",")]
    return tag in held or "*" in held


def not_modified(tag: str) -> web.Response:
    """304: what the client has still holds."""
    return web.Response(status=304, headers={"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"})
