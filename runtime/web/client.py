"""Asking another server by HTTP with a secret: a client that follows no redirect, and the header of a user."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING
from urllib import request

if TYPE_CHECKING:
    import ssl


def basic(user: str, password: str) -> str:
    """The value of ``Authorization`` for a user and a password (RFC 7617)."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def opener(context: ssl.SSLContext | None) -> request.OpenerDirector:
    """HTTP, and HTTPS where there is a ``context``, without redirects, which would carry the secret to another server."""
    made = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        *([request.HTTPSHandler(context=context)] if context is not None else []),
        request.UnknownHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
    ):
        made.add_handler(handler)
    return made
