"""The rules in force: everything that the web settings and the files they name say, read as a whole, and again when a file changes."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtflow.runtime.access.rights import Rights, read_tokens
from virtflow.runtime.access.tls import allowed_peer, server_context
from virtflow.runtime.access.web_config import REQUIRING, Rate, WebConfig, load
from virtflow.runtime.settings import Web as WebSettings
from virtflow.schemas.errors import SettingError


def _anyone(fields: Any) -> bool:  # noqa: ANN401, ``getpeercert``'s dictionary
    del fields
    return True


@dataclass(frozen=True, slots=True)
class Rules:
    """What one server goes by. ``context`` is None for plain HTTP; ``files`` are those whose change makes new rules."""

    context: ssl.SSLContext | None = None
    peer_allowed: Callable[[Any], bool] = _anyone
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, bytes] = field(default_factory=dict)
    tokens: Mapping[bytes, str] = field(default_factory=dict)
    rights: Rights = field(default_factory=lambda: Rights({}))
    rate: Rate | None = None
    certificate_required: bool = False
    files: tuple[Path, ...] = ()

    @property
    def secrets(self) -> bool:
        """Whether a request must carry a password or a token."""
        return bool(self.users or self.tokens)

    @property
    def closed(self) -> bool:
        """Whether a request must come from somebody who is known."""
        return self.secrets or self.certificate_required or bool(self.rights.names)


def read_rules(settings: WebSettings) -> Rules:
    """The rules that the files say now; raises ``SettingError`` for the first thing that is wrong."""
    config = load(Path(settings.config_file)) if settings.config_file else WebConfig(Path())
    tokens = Path(settings.tokens_file) if settings.tokens_file else None
    named = [*([config.path] if settings.config_file else []), *config.files, *([tokens] if tokens else [])]
    return Rules(
        context=server_context(config),
        peer_allowed=allowed_peer(config.tls),
        headers=config.headers,
        users=config.users,
        tokens=read_tokens(tokens) if tokens else {},
        rights=Rights(settings.rights),
        rate=config.rate,
        certificate_required=config.tls is not None and config.tls.client_auth_type == REQUIRING,
        files=tuple(named),
    )


def weakened(old: Rules, new: Rules) -> str:
    """What new rules would open that was closed; "" where nothing. A file that is half written never opens a running service."""
    if old.context is not None and new.context is None:
        return "it has no TLS any more"
    return "it lets everyone in" if old.closed and not new.closed else ""


def exposure(listen: str, rules: Rules) -> tuple[str, str]:
    """What everyone who reaches an address can see or hear, and the fix; two empty texts where the address or the rules prevent it."""
    host = listen.rpartition(":")[0].strip("[]")
    if _is_loopback(host):
        return "", ""
    if not rules.closed:
        why = "is reachable from other hosts, and everyone there may read it"
        return why, "set web.config_file (--web-config) with passwords or client certificates (docs/secure.md), or listen on 127.0.0.1"
    if rules.context is None:
        why = "is reachable from other hosts without TLS: passwords and metrics can be read on the way"
        return why, "set tls_server_config in the web configuration file (docs/secure.md), or listen on 127.0.0.1"
    return "", ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def unusable(error: SettingError) -> str:
    """One line of log for a file that was changed to something that can't be used."""
    return f"{error.key} = {error.value!r} ({error.origin}): {error.why}; {error.fix}"
