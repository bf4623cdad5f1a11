"""Asks an exporter's API, over HTTP, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import urllib.error
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from virtflow.cli.top.access import Access
from virtflow.runtime.secrets import plain_url
from virtflow.runtime.sections.rows import url_problem
from virtflow.schemas.errors import EnvironmentProblemError, InputError

URL: Final = "http://127.0.0.1:9177"
URL_VARIABLE: Final = "VIRTFLOW_URL"
"""The exporter that people ask from this machine."""
TIMEOUT_SECONDS: Final = 5.0
REFUSED: Final = frozenset({401, 403})
PREFIX: Final = "/api/v1/"

Answers = dict[str, dict[str, Any]]
"""What was answered, by the name that the asker gave to the path."""


class Source(Protocol):
    """Who is asked: an exporter, or a fleet that is read here."""

    url: str
    """Its place, for people."""

    def all(self, paths: Mapping[str, str]) -> Answers:
        """The answers to several paths below ``PREFIX``, by their names; raises ``InputError`` where there are none."""
        ...

    def settle(self) -> None:
        """Waits until the fleet is known; raises ``InputError`` where it stays unknown."""
        ...

    def close(self) -> bool:
        """Lets go of it; False where a call has not returned."""
        ...


class Client:
    """One exporter."""

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS, access: Access | None = None) -> None:
        """``url`` with or without the scheme; raises ``EnvironmentProblemError`` for one that is none of HTTP, or that names a user.

        ``access`` is for an exporter that is not open to everybody; raises as ``Access.opener`` does.
        """
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self._timeout = timeout_seconds
        if why := url_problem(self.url):
            raise _problem(str(plain_url(url)), why)
        self._opener = (access or Access()).opener(self.url)

    def get(self, path: str) -> dict[str, Any]:
        """The answer to a path below ``PREFIX``; raises ``EnvironmentProblemError`` where there is none, ``InputError`` with the API's own words."""
        address = f"{self.url}{PREFIX}{path}"
        try:
            with self._opener.open(address, timeout=self._timeout) as reply:
                found = json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(self.url, error) from error
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            why = str(getattr(error, "reason", "") or error) or type(error).__name__
            raise _problem(self.url, why) from error
        if not isinstance(found, dict):
            raise _problem(self.url, "its answer is none of virtflow's API")
        return found

    def all(self, paths: Mapping[str, str]) -> Answers:
        """The answers to several paths, by their names."""
        return {name: self.get(path) for name, path in paths.items()}

    def settle(self) -> None:
        """Nothing is waited for: an exporter has been reading before."""

    def close(self) -> bool:
        """Nothing is open between two questions."""
        return True


def _problem(url: str, why: str) -> EnvironmentProblemError:
    fix = "name an exporter, or a virtflow node, with --url http://HOST:9177"
    return EnvironmentProblemError(thing="exporter", value=url, why=why, fix=fix)


def _refused(url: str, error: urllib.error.HTTPError) -> InputError:
    if error.code in REFUSED:
        fix = "say who asks: --url-user and --url-password-file, or --url-token-file"
        return EnvironmentProblemError(thing="exporter", value=url, why=f"answers {error.code}", fix=fix)
    try:
        return InputError(str(json.load(error)["error"]["message"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return _problem(url, f"answers {error.code}: it has no fleet page, or is none of virtflow's")


class Fetcher:
    """Asks in a thread of its own, so that a slow exporter does not hold up the keyboard. The newest question counts."""

    def __init__(self, client: Source, tell: Callable[[object, Answers | str], None]) -> None:
        """``tell`` is called in that thread with the question's mark and the answers, or with why there are none."""
        self._client = client
        self._tell = tell
        self._asked: queue.SimpleQueue[tuple[object, Mapping[str, str]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)
        self._thread.start()

    def ask(self, mark: object, paths: Mapping[str, str]) -> None:
        """Asks for these paths; ``mark`` comes back with the answer."""
        self._asked.put((mark, paths))

    def close(self) -> None:
        """Ends the thread once its question is answered."""
        self._asked.put(None)

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            while not self._asked.empty():
                newer = self._asked.get()
                if newer is None:
                    return
                asked = newer
            mark, paths = asked
            try:
                self._tell(mark, self._client.all(paths))
            except InputError as error:
                self._tell(mark, str(error))
