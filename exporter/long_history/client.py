"""Asks a history server: its HTTP API is Prometheus' own, so that any server of that API will do.

Source of the protocol: Prometheus' documentation, "HTTP API", range queries. The secrets stay in this process.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec
from msgspec import Struct, field

from virtflow.exporter.long_history.periods import Period
from virtflow.runtime.named_files import secret_of, tls_of
from virtflow.runtime.secrets import plain_url
from virtflow.runtime.settings import Exporter
from virtflow.runtime.web.answers import TooLongError, body_of
from virtflow.runtime.web.client import basic
from virtflow.schemas.errors import InputError, SettingError
from virtflow.schemas.text import printable

if TYPE_CHECKING:
    import ssl

ANSWER_BYTES: Final = 1 << 20
"""Of one curve: 2,000 points take about 60 kB."""
AT_ONCE: Final = 4
"""Questions that are with the server at a time; the asker sees to it."""
WHY_CHARACTERS: Final = 300
BAD_GATEWAY, UNAVAILABLE, TOO_SLOW = 502, 503, 504
OK: Final = 200

Values = list[float | None]


class HistoryError(InputError):
    """The history server gave no answer, or one that can't be used: why in one line, and the HTTP status for whoever asked us."""

    def __init__(self, why: str, status: int) -> None:
        """``why`` may be anybody's words."""
        super().__init__(printable(why.replace("\n", " "), WHY_CHARACTERS))
        self.status: Final = status


class Series(Struct):
    """One series of an answer: pairs of Unix seconds and the value as text."""

    values: list[tuple[float, str]] = field(default_factory=list)


class Data(Struct):
    """The result of a range query."""

    result: list[Series] = field(default_factory=list)


class Reply(Struct):
    """An answer of the API; ``warnings`` say what is missing of one that is successful."""

    status: str = ""
    error: str = ""
    data: Data = field(default_factory=Data)
    warnings: list[str] = field(default_factory=list)


class HistoryServer:
    """One server. Belongs to the event loop."""

    def __init__(self, settings: Exporter) -> None:
        """Nothing is connected yet; raises ``SettingError`` for a file that can't be used, and for two ways to sign in."""
        self.url: Final = settings.history_url.rstrip("/")
        self.name: Final = f"the history server {plain_url(self.url)}"
        self._seconds = min(settings.history_timeout_seconds, 0.6 * settings.request_timeout_seconds)
        self._headers = _authorization(settings)
        self._tenant_header = settings.history_tenant_header
        self._tls = _tls(settings)
        self._session: aiohttp.ClientSession | None = None

    @property
    def seconds(self) -> float:
        """How long an answer may take: less than the exporter's own clients wait."""
        return self._seconds

    @property
    def by_project(self) -> bool:
        """Whether the server is told whose VM it is, and answers with no other project's samples."""
        return bool(self._tenant_header)

    async def ask(self, expression: str, period: Period, project: str) -> Values:
        """The value at each point of a period, None where there is none; raises ``HistoryError``. Takes as long as it takes."""
        try:
            return values_of(await self._answer(expression, period, project), period)
        except (aiohttp.ClientError, OSError) as error:
            raise HistoryError(f"{self.name} can't be asked: {str(error) or type(error).__name__}", UNAVAILABLE) from error

    async def close(self) -> None:
        """Lets the connections go."""
        if self._session is not None:
            await self._session.close()

    async def _answer(self, expression: str, period: Period, project: str) -> Reply:
        given = {"query": expression, "start": str(period.start), "end": str(period.end), "step": str(period.step)}
        headers = {self._tenant_header: project} if self._tenant_header else {}
        # Redirects would carry the secrets to another server.
        async with self._client().post(f"{self.url}/api/v1/query_range", data=given, headers=headers, allow_redirects=False) as reply:
            status = reply.status
            try:
                body = await body_of(reply, ANSWER_BYTES)
            except TooLongError:
                raise HistoryError(f"{self.name} answers with more than {ANSWER_BYTES >> 20} MiB", BAD_GATEWAY) from None
        if status in {401, 403}:
            raise HistoryError(f"{self.name} refuses: {status} {_why(body)}", BAD_GATEWAY)
        try:
            found = msgspec.json.decode(body, type=Reply)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HistoryError(f"{self.name} answers {status}, and not in the words of Prometheus' API", BAD_GATEWAY) from error
        problem = found.error or "; ".join(found.warnings)
        if status != OK or found.status != "success" or problem:
            raise HistoryError(f"{self.name} answers {status}: {problem or 'no result'}", BAD_GATEWAY)
        return found

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=AT_ONCE, ssl=self._tls or True)
            # The time limit is the asker's: it holds for the waiting before as well.
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, timeout=aiohttp.ClientTimeout(total=None), trust_env=False
            )
        return self._session


def values_of(reply: Reply, period: Period) -> Values:
    """The values on the points of a period; of several series the first that has one. What is no number is None."""
    found: Values = [None] * period.points
    for series in reply.data.result:
        for at, text in series.values:
            place, beside = divmod(round(at) - period.start, period.step)
            if beside or not 0 <= place < len(found) or found[place] is not None:
                continue
            try:
                number = float(text)
            except ValueError:
                continue
            found[place] = number if isfinite(number) else None
    return found


def _why(body: bytes) -> str:
    """The words of a refusal: the API's own, or the first line of a text."""
    try:
        return msgspec.json.decode(body, type=Reply).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return printable(body[:WHY_CHARACTERS].decode("utf-8", "replace").strip().partition("\n")[0], WHY_CHARACTERS)


def _authorization(settings: Exporter) -> dict[str, str]:
    token, user = settings.history_token_file, settings.history_username
    if token and user:
        raise _unusable("history_token_file", token, "is set, and so is exporter.history_username", "set one of both")
    if token:
        return {"Authorization": f"Bearer {_secret(token, 'history_token_file')}"}
    if not user:
        return {}
    if ":" in user:
        raise _unusable("history_username", user, "has a colon, which no user of HTTP basic authentication has", "name the user alone")
    password = _secret(settings.history_password_file, "history_password_file") if settings.history_password_file else ""
    return {"Authorization": basic(user, password)}


def _tls(settings: Exporter) -> ssl.SSLContext | None:
    return (
        tls_of(settings.history_tls_ca_file, "exporter.history_tls_ca_file") if settings.history_url.lower().startswith("https:") else None
    )


def _secret(path: str, key: str) -> str:
    return secret_of(path, f"exporter.{key}").strip()


def _unusable(key: str, value: str, why: str, fix: str) -> SettingError:
    return SettingError(origin="settings", key=f"exporter.{key}", value=value, why=why, fix=fix)
