"""What a query is refused for, in words."""

from __future__ import annotations

from virtflow.runtime.settings import History
from virtflow.schemas.errors import InputError


class QueryError(InputError):
    """A query that can't be answered: wrong, forbidden, or beyond the limits; the text says which."""


def too_long(settings: History) -> str:
    """Why a query ended that took too long."""
    return f"took more than {settings.query_seconds:g} s; ask for less time or fewer VMs, or raise history.query_seconds"


def too_many_rows(settings: History) -> str:
    """Why a query ended whose answer has too many rows."""
    return f"more than {settings.query_rows} rows; add a LIMIT, or raise history.query_rows"


def too_many_bytes(settings: History) -> str:
    """Why a query ended whose answer is too large."""
    return f"an answer of more than {settings.query_bytes} bytes; ask for fewer columns or rows, or raise history.query_bytes"


def too_much_memory(why: str) -> str:
    """Why a query ended that took too much memory."""
    return f"would take more memory than history.query_memory_bytes allows: {why}"
