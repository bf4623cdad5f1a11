"""Queries to a Prometheus, or to what speaks its HTTP API."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector
from msgspec import Struct, field

from virtflow.runtime.named_files import secret_of
from virtflow.runtime.settings import Adapter
from virtflow.runtime.web.answers import TooLongError, body_of
from virtflow.schemas.errors import EnvironmentProblemError, InputError, SettingError

ANSWER_SECONDS: Final = 8.0
"""How long Prometheus may take for a query: the API server waits longer for the adapter."""
ANSWER_BYTES: Final = 64 << 20
"""Of one query: a series of one VM takes some 500 bytes."""
PATH: Final = "/api/v1/query"
_TOKEN_SETTING: Final = "adapter.prometheus_token_file"  # noqa: S105, its name


class PrometheusError(InputError):
    """Prometheus did not answer, or refused the query."""


class Series(Struct, frozen=True, gc=False):
    """A series of an answer: its labels with ``__name__``, and its points (Unix seconds of Prometheus' clock, value as text)."""

    metric: dict[str, str]
    values: list[tuple[float, str]] = field(default_factory=list)
    value: tuple[float, str] | None = None


class _Data(Struct, frozen=True):
    result: list[Series] = field(default_factory=list)


class _Answer(Struct, frozen=True):
    status: str = ""
    error: str = ""
    data: _Data = field(default_factory=_Data)


class PrometheusClient:
    """One session. ``async with`` opens and closes it; the token is read again for each query."""

    def __init__(self, settings: Adapter) -> None:
        """Raises ``EnvironmentProblemError`` where the CA certificates can't be read."""
        self._url = settings.prometheus_url.rstrip("/") + PATH
        self._token = Path(settings.prometheus_token_file) if settings.prometheus_token_file else None
        try:
            self._tls = ssl.create_default_context(cafile=settings.prometheus_ca_file or None)
        except (OSError, ssl.SSLError) as error:
            fix = "name a PEM file that this user can read (adapter.prometheus_ca_file)"
            raise EnvironmentProblemError(thing="certificates", value=settings.prometheus_ca_file, why=str(error), fix=fix) from error
        # Authorities of clusters lack extensions that newer Pythons ask for.
        self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Opens the session."""
        self._session = ClientSession(connector=TCPConnector(ssl=self._tls), timeout=ClientTimeout(total=ANSWER_SECONDS))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes it."""
        assert self._session is not None
        await self._session.close()

    async def query(self, promql: str, at: float | None = None) -> list[Series]:
        """The series of an instant query at a Unix time, now when there is none; raises ``PrometheusError``."""
        assert self._session is not None
        form: dict[str, Any] = {"query": promql} | ({} if at is None else {"time": f"{at:.3f}"})
        try:
            headers = {"Authorization": f"Bearer {secret_of(self._token, _TOKEN_SETTING).strip()}"} if self._token else {}
            # A redirect would carry the token to another server.
            async with self._session.post(self._url, data=form, headers=headers, allow_redirects=False) as answer:
                body = await body_of(answer, ANSWER_BYTES)
        except TooLongError as error:
            raise PrometheusError(f"Prometheus answers with more than {ANSWER_BYTES >> 20} MiB") from error
        except SettingError as error:
            raise PrometheusError(f"{error.key} {error.value}: {error.why}") from error
        except (ClientError, OSError, TimeoutError) as error:
            raise PrometheusError(f"Prometheus does not answer: {str(error) or type(error).__name__}") from error
        try:
            found = msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise PrometheusError(f"Prometheus answers {answer.status}, and not as Prometheus does") from error
        if found.status != "success":
            raise PrometheusError(f"Prometheus answers {answer.status}: {found.error[:200]}")
        return found.data.result
