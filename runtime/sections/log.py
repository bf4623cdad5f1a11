"""Settings of the services' log."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from virtflow.runtime.sections.rows import row


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What services write to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], row("Least severity that is written.", "--log-level")] = "info"
    format: Annotated[Literal["text", "json"], row("Lines for people, or JSON objects for programs.", "--log-format")] = "text"
