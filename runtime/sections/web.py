"""Settings of the HTTP endpoints of all services."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct, field

from virtflow.runtime.sections.rows import row


class Web(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP endpoints of all services: TLS, passwords, tokens, and who may see what (docs/secure.md)."""

    config_file: Annotated[
        str,
        row(
            "Web configuration file in the format of Prometheus' exporter-toolkit: TLS, client certificates, passwords, headers, rate limit. "
            "Plain HTTP without passwords when empty.",
            "--web-config",
        ),
    ] = ""
    tokens_file: Annotated[
        str, row("File of lines `TOKEN NAME`: a request with `Authorization: Bearer TOKEN` is one of NAME; all others need a password.")
    ] = ""
    rights: Annotated[
        dict[str, str],
        row(
            "Rights of each user, token or client certificate by its name, separated by spaces: metrics, history, write. "
            "Who is not named then has none. When empty, everyone who is let in has metrics and history."
        ),
    ] = field(default_factory=dict)
