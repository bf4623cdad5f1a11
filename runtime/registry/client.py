"""The schema registry's REST API: the two calls that virtflow makes of it, over the standard library's HTTP client.

Confluent's own client loads 580 modules and 32 MB for them; a producer has no room for that.
Source of the protocol: Confluent's schema registry API (POST /subjects/SUBJECT/versions, GET /schemas/ids/ID).
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from virtflow.runtime.named_files import secret_of, tls_of
from virtflow.runtime.secrets import plain_url
from virtflow.runtime.settings import Registry
from virtflow.runtime.web.client import basic, opener
from virtflow.schemas.errors import RegistryUnavailableError

if TYPE_CHECKING:
    from virtflow.schemas.avro.schema import Schema

ANSWER_BYTES: Final = 4 << 20
"""The longest answer that is read; our largest schema takes 40 kB."""
PIECE_BYTES: Final = 65_536
LARGEST_ID: Final = 2**31 - 1
"""An id takes four bytes of a message, and Java reads them with a sign."""
NOT_FOUND: Final = 404
REDIRECTS: Final = range(300, 400)
"""Not followed: that would carry the password to another server, and lose what is registered."""
MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class RegistryClient:
    """Asks one registry. Each call is a connection of its own: there are a few in a service's life."""

    def __init__(self, registry: Registry) -> None:
        """Raises ``SettingError`` where a file that the settings name can't be used."""
        self.url: Final = registry.url.rstrip("/")
        self.name: Final = f"the schema registry {plain_url(self.url)}"
        self._timeout = registry.timeout_seconds
        self._headers = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE} | _authorization(registry)
        tls = tls_of(registry.tls_ca_file, "registry.tls_ca_file") if registry.url.lower().startswith("https:") else None
        self._opener = opener(tls)

    def register(self, subject: str, schema: Schema) -> int:
        """The id of a schema under a subject, registered where it is not yet; raises ``RegistryUnavailableError`` without an answer."""
        path = f"/subjects/{urllib.parse.quote(subject, safe='')}/versions"
        answer = self._ask(path, {"schema": json.dumps(schema), "schemaType": "AVRO"})
        found = answer.get("id") if answer else None
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= LARGEST_ID:
            raise RegistryUnavailableError(f"{self.name} gave no id for {subject}: {str(answer)[:200]}")
        return found

    def schema(self, schema_id: int) -> Schema | None:
        """The schema of an id, None where the registry says that there is none; raises ``RegistryUnavailableError`` without an answer."""
        answer = self._ask(f"/schemas/ids/{schema_id}")
        if answer is None:
            return None
        try:
            schema = json.loads(answer.get("schema") or "null")
        except (ValueError, TypeError, RecursionError):
            return None
        return schema if isinstance(schema, dict) else None

    def subjects(self) -> None:
        """Asks for the list of subjects, only to see an answer; raises ``RegistryUnavailableError`` without one."""
        self._answer("/subjects", None)

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        answer = self._answer(path, body)
        if answer is not None and not isinstance(answer, dict):
            raise RegistryUnavailableError(f"{self.name} answers {path} with no JSON object")
        return answer

    def _answer(self, path: str, body: dict[str, Any] | None) -> Any:  # noqa: ANN401, whatever JSON holds
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers)  # noqa: S310, the scheme is checked as the settings are read
        try:
            with self._opener.open(request, timeout=self._timeout) as reply:
                return json.loads(self._read(reply))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == NOT_FOUND and body is None:
                return None
            elsewhere = error.headers.get("Location") if error.code in REDIRECTS else None
            fix = f": set registry.url to where it leads, {plain_url(elsewhere)[:200]}" if elsewhere else ""
            raise RegistryUnavailableError(f"{self.name} answers {path} with {error.code} {error.reason}{fix}") from error
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            why = getattr(error, "reason", None) or error
            raise RegistryUnavailableError(f"{self.name} does not answer: {why}") from error

    def _read(self, reply: http.client.HTTPResponse) -> bytes:
        """The whole answer, within twice the time limit: the connection's own limit holds for each piece only."""
        until = time.monotonic() + 2 * self._timeout
        pieces = bytearray()
        while piece := reply.read1(PIECE_BYTES):
            pieces += piece
            if len(pieces) > ANSWER_BYTES:
                raise ValueError(f"an answer of more than {ANSWER_BYTES} bytes")
            if time.monotonic() > until:
                raise TimeoutError("the answer is too slow")
        return bytes(pieces)


def _authorization(registry: Registry) -> dict[str, str]:
    if not registry.username:
        return {}
    password = secret_of(registry.password_file, "registry.password_file") if registry.password_file else ""
    return {"Authorization": basic(registry.username, password)}
