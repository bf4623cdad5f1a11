"""Who asks: the project whose VMs a request may see, by a header that a proxy sets or by a token. Pure but for reading the file."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

from multidict import CIMultiDictProxy

from virtflow.runtime.named_files import text_of
from virtflow.runtime.settings import History
from virtflow.schemas.errors import InputError, SettingError

OWN_SCHEME: Final = "Virtflow"
"""The scheme of our own evaluator's Authorization: a secret of this run, a dot, and the tenant in base64. Not a header of its own: Prometheus 2.42
sends none with remote_read."""
PROJECT_CHARACTERS: Final = 255
_BEARER: Final = "Bearer "
_TOKENS_FILE: Final = "history.tenant_tokens_file"


class NotAllowedError(InputError):
    """A request that names no tenant, or more than one."""


class Tenants:
    """Finds the tenant of a request; "" where the server knows no tenants, so that everything may be seen."""

    def __init__(self, settings: History) -> None:
        """Raises ``SettingError`` where the file with the tokens can't be used."""
        self._header = settings.tenant_header
        self._tokens = _tokens(settings.tenant_tokens_file) if settings.tenant_tokens_file else {}
        self._secret = secrets.token_hex(32)
        self.wanted: Final = bool(settings.tenant_header or settings.tenant_tokens_file)

    def own(self, tenant: str) -> str:
        """The credentials by which our own evaluator asks for a tenant."""
        return f"{self._secret}.{base64.urlsafe_b64encode(tenant.encode()).decode()}"

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request has a tenant's token: whoever has may ask the history."""
        return bool(self._by_token(headers))

    def is_own(self, headers: Mapping[str, str]) -> bool:
        """Whether our own evaluator asks."""
        return self._own(headers) is not None

    def of(self, headers: CIMultiDictProxy[str] | Mapping[str, str]) -> str:
        """The tenant; raises ``NotAllowedError`` where there has to be one and none is told, or two are."""
        own = self._own(headers)
        if own is not None:
            return own
        if not self.wanted:
            return ""
        told = {found for found in (self._by_token(headers), self._by_header(headers)) if found}
        if len(told) != 1:
            raise NotAllowedError("name one project: " + " or ".join(self._ways()))
        return told.pop()

    def _own(self, headers: CIMultiDictProxy[str] | Mapping[str, str]) -> str | None:
        """The tenant that our own evaluator asks for; None where it is not the one who asks."""
        scheme, _, credentials = _authorization(headers).partition(" ")
        secret, _, tenant = credentials.strip().partition(".")
        if scheme != OWN_SCHEME or not hmac.compare_digest(secret.encode(), self._secret.encode()):
            return None
        return base64.urlsafe_b64decode(tenant).decode()

    def _ways(self) -> list[str]:
        ways = [f"the header {self._header}"] if self._header else []
        return [*ways, "Authorization: Bearer TOKEN"] if self._tokens else ways

    def _by_token(self, headers: CIMultiDictProxy[str] | Mapping[str, str]) -> str:
        given = _authorization(headers)
        if not self._tokens or not given.startswith(_BEARER):
            return ""
        token = given.removeprefix(_BEARER).strip().encode()
        found = [project for known, project in self._tokens.items() if hmac.compare_digest(known.encode(), token)]
        return found[0] if found else ""

    def _by_header(self, headers: CIMultiDictProxy[str] | Mapping[str, str]) -> str:
        if not self._header:
            return ""
        values = headers.getall(self._header, []) if isinstance(headers, CIMultiDictProxy) else [headers.get(self._header, "")]
        named = [value.strip() for value in values if value.strip()]
        if len(named) > 1 or any(len(value) > PROJECT_CHARACTERS or not _is_text(value) for value in named):
            raise NotAllowedError(f"the header {self._header} must name one project")
        return named[0] if named else ""


def _authorization(headers: CIMultiDictProxy[str] | Mapping[str, str]) -> str:
    """The header of that name; "" also where it is no text, and so nobody's."""
    given = headers.get("Authorization", "")
    return given if _is_text(given) else ""


def _is_text(given: str) -> bool:
    """Whether a header is UTF-8: bytes that are not come as halves of surrogates, which nothing can take on."""
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tokens(path: str) -> dict[str, str]:
    lines = text_of(path, _TOKENS_FILE).splitlines()
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        token, _, project = line.strip().partition(" ")
        if not token or token.startswith("#"):
            continue
        if not project.strip() or token in found:
            raise _unusable(path, f"line {number} is not a token of its own and a project", "write lines TOKEN PROJECT")
        found[token] = project.strip()
    if not found:
        raise _unusable(path, "no token in it", "write lines TOKEN PROJECT")
    return found


def _unusable(path: str, why: str, fix: str) -> SettingError:
    return SettingError(origin="settings", key=_TOKENS_FILE, value=path, why=why, fix=fix)
