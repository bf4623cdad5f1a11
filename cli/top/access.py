"""How an exporter is asked that is not open to everybody: the user or the token, and whom its certificate is checked against."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from virtflow.runtime.named_files import secret_of, tls_of
from virtflow.runtime.web.client import basic, opener
from virtflow.schemas.errors import EnvironmentProblemError, InputError, SettingError

if TYPE_CHECKING:
    import ssl
    from urllib.request import OpenerDirector

VARIABLE: Final = "VIRTFLOW_URL_{}"
SWITCH: Final = "--url-{}"


@dataclass(frozen=True, slots=True)
class Access:
    """A user with the file of its password, or the file of a token; and a file of authorities, the system's where it is empty."""

    user: str = ""
    password_file: str = ""
    token_file: str = ""
    ca_file: str = ""

    def opener(self, url: str) -> OpenerDirector:
        """What asks that URL; raises ``EnvironmentProblemError`` for a file that can't be read, ``InputError`` for two ways to sign in."""
        made = opener(_tls(self.ca_file) if url.lower().startswith("https:") else None)
        made.addheaders += self._authorization()
        return made

    def _authorization(self) -> list[tuple[str, str]]:
        if self.token_file and (self.user or self.password_file):
            raise InputError(f"{_switch('token_file')} and {_switch('user')} are two ways to sign in: give one of them")
        if self.token_file:
            return [("Authorization", f"Bearer {_secret('token_file', self.token_file)}")]
        if not self.user:
            if self.password_file:
                raise InputError(f"{_switch('password_file')} needs {_switch('user')}")
            return []
        password = _secret("password_file", self.password_file) if self.password_file else ""
        return [("Authorization", basic(self.user, password))]


FIELDS: Final = {
    "user": "User that the exporter knows, where it asks for a password.",
    "password_file": "File that holds its password and nothing else.",
    "token_file": "File that holds a bearer token and nothing else, instead of a user.",
    "ca_file": "CA certificates that the exporter is checked against; the system's when empty.",
}
"""The fields, and what they are for."""


def variable(field: str) -> str:
    """The environment variable of a field."""
    return VARIABLE.format(field.upper())


def access_of_environment() -> Access:
    """As the environment says."""
    return Access(**{field: os.environ.get(variable(field), "") for field in FIELDS})


def _switch(field: str) -> str:
    return SWITCH.format(field.replace("_", "-"))


def _secret(field: str, path: str) -> str:
    try:
        return secret_of(path, field).strip()
    except SettingError as error:
        raise _unusable(field, path, error) from error


def _tls(path: str) -> ssl.SSLContext:
    try:
        return tls_of(path, "ca_file")
    except SettingError as error:
        raise _unusable("ca_file", path, error) from error


def _unusable(field: str, path: str, error: SettingError) -> EnvironmentProblemError:
    return EnvironmentProblemError(thing=_switch(field), value=path, why=error.why, fix=error.fix)
