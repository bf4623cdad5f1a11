"""Requests to the Kubernetes API server: as the pod's service account, or with what the settings name."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector

from virtflow.runtime.named_files import secret_of
from virtflow.runtime.settings import Adapter
from virtflow.schemas.errors import EnvironmentProblemError, InputError, SettingError

ANSWER_SECONDS: Final = 10.0
"""How long the API server may take for a short request."""
HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
"""What Kubernetes sets in each pod."""
_TOKEN_SETTING: Final = "adapter.kubernetes_token_file"  # noqa: S105, its name


class KubernetesError(InputError):
    """The API server did not answer, or refused; ``status`` is HTTP's, 0 without an answer."""

    def __init__(self, status: int, message: str) -> None:
        """``message`` names the request."""
        super().__init__(message)
        self.status = status


class KubernetesClient:
    """One session. ``async with`` opens and closes it; the token is read again for each request, since it is renewed."""

    def __init__(self, settings: Adapter) -> None:
        """Reads the certificates; raises ``EnvironmentProblemError`` where they, or the server's address, are not there."""
        self._url = settings.kubernetes_url.rstrip("/") or _in_cluster()
        self._token = Path(settings.kubernetes_token_file) if settings.kubernetes_token_file else None
        self._tls = _context(settings)
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Opens the session."""
        self._session = ClientSession(connector=TCPConnector(ssl=self._tls), read_bufsize=2**20, auto_decompress=True)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes it."""
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str, parameters: dict[str, str] | None = None, accept: str = "application/json") -> bytes:
        """The body of a resource or list; raises ``KubernetesError``."""
        return await self._short("GET", path, params=parameters, headers={"Accept": accept})

    async def create(self, path: str, body: dict[str, Any]) -> bytes:
        """What the server answers to a new object; raises ``KubernetesError``."""
        return await self._short("POST", path, data=msgspec.json.encode(body), headers={"Content-Type": "application/json"})

    async def stream(self, path: str, parameters: dict[str, str], accept: str, silence_seconds: float) -> ClientResponse:
        """An open answer that goes on; raises ``KubernetesError``. Reading it raises ``TimeoutError`` after so much silence."""
        limits = ClientTimeout(total=None, sock_connect=ANSWER_SECONDS, sock_read=silence_seconds)
        return await self._request("GET", path, limits, params=parameters, headers={"Accept": accept})

    async def _short(self, method: str, path: str, **more: Any) -> bytes:  # noqa: ANN401, aiohttp's own arguments
        answer = await self._request(method, path, ClientTimeout(total=ANSWER_SECONDS), **more)
        try:
            async with answer:
                return await answer.read()
        except (ClientError, OSError, TimeoutError) as error:
            raise KubernetesError(0, f"{method} {path}: {_words(error)}") from error

    async def _request(self, method: str, path: str, limits: ClientTimeout, **more: Any) -> ClientResponse:  # noqa: ANN401, as above
        assert self._session is not None
        try:
            headers = {**more.pop("headers"), **self._authorization()}
            answer = await self._session.request(method, self._url + path, timeout=limits, headers=headers, **more)
        except SettingError as error:
            raise KubernetesError(0, f"{error.key} {error.value}: {error.why}") from error
        except (ClientError, OSError, TimeoutError) as error:
            raise KubernetesError(0, f"{method} {path}: {_words(error)}") from error
        if not answer.ok:
            answer.close()
            raise KubernetesError(answer.status, f"{method} {path}: {answer.status} {answer.reason}")
        return answer

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {secret_of(self._token, _TOKEN_SETTING).strip()}"} if self._token else {}


def _in_cluster() -> str:
    host, port = os.environ.get(HOST, ""), os.environ.get(PORT, "443")
    if not host:
        fix = "set adapter.kubernetes_url, or run the adapter in a pod"
        raise EnvironmentProblemError(thing="environment variable", value=HOST, why="not set", fix=fix)
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _context(settings: Adapter) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kubernetes_ca_file or None)
        # Authorities of clusters lack extensions that newer Pythons ask for (kubeadm's has no key identifier).
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if settings.kubernetes_certificate_file:
            context.load_cert_chain(settings.kubernetes_certificate_file, settings.kubernetes_key_file or None)
    except (OSError, ssl.SSLError) as error:
        files = " ".join(filter(None, (settings.kubernetes_ca_file, settings.kubernetes_certificate_file, settings.kubernetes_key_file)))
        fix = "name PEM files that this user can read (settings adapter.kubernetes_*_file)"
        raise EnvironmentProblemError(thing="certificates", value=files, why=str(error), fix=fix) from error
    return context


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
