"""Reads the settings from file, environment and switches, and reports exactly what is wrong with an invalid one."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec
from msgspec import inspect

from virtflow.runtime.config_files import chosen_files, config_folder, credentials
from virtflow.runtime.secrets import HIDDEN, harmless
from virtflow.runtime.sections.rows import ADDRESS_PATTERN, url_problem
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import SettingError

ENVIRONMENT_PREFIX: Final = "VIRTFLOW_"
_UNREAD: Final = "name a file that can be read, or a folder with virtflow.toml or the part's own file in it"
ADDRESS_FORM: Final = "an address and a port, as in 127.0.0.1:9177 or [::1]:9177"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as declared: section and key, type and bounds, default, switch and help; of a URL an example, and whether it may have a query."""

    section: str
    key: str
    type: inspect.Type
    about: str
    switch: str
    default: Any
    url: str = ""
    query: bool = False

    @property
    def path(self) -> str:
        """``section.key``: the setting's name in messages, and of its switch's value."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{ENVIRONMENT_PREFIX}{self.section}_{self.key}".upper()

    @property
    def bounds(self) -> str:
        """The allowed values as text; "" where the type is enough."""
        match self.type:
            case inspect.LiteralType(values=values):
                words = "one of " + ", ".join(sorted(json.dumps(value) for value in values))
            case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high) if low is not None:
                words = f"{low} to {high}"
            case inspect.FloatType(gt=above, le=high) if above is not None:
                words = f"above {above}, at most {high}"
            case inspect.StrType(pattern=str() as pattern):
                words = ADDRESS_FORM if pattern == ADDRESS_PATTERN else f"as in {pattern}"
            case inspect.StrType(min_length=int()):
                words = "not empty"
            case _ if self.url:
                words = f"an http or https URL, as in {self.url}"
            case _:
                words = ""
        return words


@cache
def rows() -> tuple[Row, ...]:
    """Every setting in the order of its declaration."""
    return tuple(_declared())


def _declared() -> Iterator[Row]:
    for section in _struct(inspect.type_info(Settings)).fields:
        for item in _struct(section.type).fields:
            kind: inspect.Type = item.type
            meta: dict[str, Any] = {}
            if isinstance(kind, inspect.Metadata):
                meta = {**(kind.extra_json_schema or {}), **(kind.extra or {})}
                kind = kind.type
            default = item.default_factory() if item.default is msgspec.NODEFAULT else item.default
            names = section.name, item.name
            yield Row(
                *names, kind, meta.get("description", ""), meta.get("switch", ""), default, meta.get("url", ""), meta.get("query", False)
            )


def section_about(section: str) -> str:
    """What a section is for, in one sentence."""
    info = next(item.type for item in _struct(inspect.type_info(Settings)).fields if item.name == section)
    return _struct(info).cls.__doc__ or section


def _struct(info: inspect.Type) -> inspect.StructType:
    assert isinstance(info, inspect.StructType)
    return info


@dataclass(frozen=True, slots=True)
class _Given:
    """A value and its origin."""

    origin: str
    key: str
    value: Any
    text: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of reading all origins: the settings with every valid value, the origin of each value, every error, and the files read."""

    settings: Settings
    origins: Mapping[str, str]
    errors: tuple[SettingError, ...]
    files: tuple[Path, ...]


def load(file: Path | None, environ: Mapping[str, str], switches: Mapping[str, object] | None = None, part: str = "") -> Settings:
    """The settings; raises ``SettingError`` that names origin, key, value, reason and fix.

    ``switches`` maps ``section.key`` to the command line's value. ``file`` may be a folder; without it, the file or folder that
    ``VIRTFLOW_CONFIG`` names is read, else ``/etc/virtflow``. ``part`` chooses the files of a folder, and the credentials.
    """
    surveyed = survey(file, environ, switches, part)
    if surveyed.errors:
        raise surveyed.errors[0]
    return surveyed.settings


def survey(file: Path | None, environ: Mapping[str, str], switches: Mapping[str, object] | None = None, part: str = "") -> Survey:
    """As ``load``, but reports every error instead of the first, and the origin of each effective value."""
    known = {row.path: row for row in rows()}
    errors: list[SettingError] = []
    files = chosen_files(file, environ, part)
    given: dict[str, _Given] = {}
    secrets = [_Given(f"credential {path}", setting, str(path), text=False) for setting, path in credentials(environ, part)]
    for one in _origins(files, environ, known, secrets, alone=config_folder(file, environ) is None):
        if isinstance(one, SettingError):
            errors.append(one)
        else:
            given[one.key] = one
    for path, value in (switches or {}).items():
        if isinstance(value, str) and not _encodable(value):
            origin, fix = f"switch {known[path].switch}", "write it in UTF-8"
            errors.append(SettingError(origin=origin, key=path, value=HIDDEN, why="holds bytes that are no text", fix=fix))
        elif value is not None:
            given[path] = _Given(f"switch {known[path].switch}", path, value, isinstance(value, str))
    sections: dict[str, dict[str, Any]] = {}
    origins = {}
    for path, one in given.items():
        row = known[path]
        try:
            sections.setdefault(row.section, {})[row.key] = _converted(row, one)
        except SettingError as error:
            errors.append(error)
        else:
            origins[path] = one.origin
    return Survey(msgspec.convert(sections, Settings), origins, tuple(errors), files)


def _origins(
    files: Iterable[Path], environ: Mapping[str, str], known: Mapping[str, Row], secrets: Iterable[_Given], *, alone: bool
) -> Iterator[_Given | SettingError]:
    """All origins but the switches; of a setting that is given twice the later one counts.

    A file that is read ``alone`` may be of another user than the part's, as an administrator's is: the secret that it names is that user's.
    """
    if alone:
        yield from secrets
    for file in files:
        yield from _from_file(file, known)
    if not alone:
        yield from secrets
    yield from _from_environment(environ, known)


def _from_file(file: Path, known: Mapping[str, Row]) -> Iterator[_Given | SettingError]:
    origin = f"file {file}"
    try:
        document = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        why = error.strerror or str(error)
        yield SettingError(origin=origin, key="--config", value=str(file), why=why, fix=_UNREAD)
        return
    except (
        ValueError,
        RecursionError,
    ) as error:  # what is no TOML or no UTF-8, numbers of thousands of digits, and what is nested without end
        yield SettingError(origin=origin, key="(whole file)", value=file.name, why=f"no TOML: {error}", fix="mend that line")
        return
    sections = {row.section for row in known.values()}
    for section, table in document.items():
        if section not in sections:
            yield _unknown(origin, section, [*sections, *known])
        elif not isinstance(table, dict):
            yield SettingError(
                origin=origin, key=section, value=HIDDEN, why="not a section", fix=f"write [{section}] and its settings below it"
            )
        else:
            yield from _from_section(origin, section, table, known)


def _from_section(origin: str, section: str, table: Mapping[str, object], known: Mapping[str, Row]) -> Iterator[_Given | SettingError]:
    for key, value in table.items():
        path = f"{section}.{key}"
        yield _Given(origin, path, value, text=False) if path in known else _unknown(origin, path, known)


def _from_environment(environ: Mapping[str, str], known: Mapping[str, Row]) -> Iterator[_Given | SettingError]:
    variables = {row.variable: path for path, row in known.items()}
    sections = tuple({f"{ENVIRONMENT_PREFIX}{row.section.upper()}_" for row in known.values()})
    for name, value in environ.items():
        if name in variables and not _encodable(value):
            fix = "set it in UTF-8"
            yield SettingError(origin=f"environment {name}", key=variables[name], value=HIDDEN, why="holds bytes that are no text", fix=fix)
        elif name in variables:
            yield _Given(f"environment {name}", variables[name], value, text=True)
        elif name.startswith(sections):
            yield _unknown("environment", name, variables)


def _unknown(origin: str, key: str, known: Iterable[str]) -> SettingError:
    """Error for an unknown setting, with a suggestion: the same key in another section, or the most similar name.

    Its value is not shown: who writes ``sasl_password`` gives one.
    """
    names = sorted(known)
    near = [name for name in names if name.endswith(f".{key}")] or difflib.get_close_matches(key, names, n=1)
    fix = f"did you mean {near[0]}?" if near else "`virtflow config sample` lists the settings"
    return SettingError(origin=origin, key=key, value=HIDDEN, why="there is no such setting", fix=fix)


def _converted(row: Row, given: _Given) -> object:
    value = _parsed(row, given.value) if given.text else given.value
    try:
        converted: Any = msgspec.convert({"value": value}, _holder(row.section, row.key), strict=not given.text)
    except msgspec.ValidationError as error:
        why = re.sub(r"(?: matching regex .*)? - at `\$\.value(.*)`", r"\1", str(error))
        allowed = f"give {row.bounds}. " if row.bounds else ""
        fix = f"{allowed}{row.about} Default: {row.default!r}"
        raise SettingError(origin=given.origin, key=row.path, value=harmless(row.path, given.value), why=why, fix=fix) from error
    if row.url and converted.value and (why := url_problem(converted.value, query=row.query)):
        fix = f"write it as {row.url}" + (", and the user by settings of its own" if "user" in why else "")
        raise SettingError(origin=given.origin, key=row.path, value=harmless(row.path, given.value), why=why, fix=fix)
    if row.path == "kafka.bootstrap_servers" and "@" in converted.value:  # which is shown, in librdkafka's words, too
        fix = "write HOST:PORT, and the user and its password by kafka.sasl_username and kafka.sasl_password_file"
        raise SettingError(origin=given.origin, key=row.path, value=HIDDEN, why="names a user", fix=fix)
    return converted.value


def _encodable(text: str) -> bool:
    """Whether text is text: Python keeps bytes of the command line and the environment that are no UTF-8 as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _parsed(row: Row, text: str) -> object:
    """Lists and maps from one line of text: ``a,b`` and ``k=v,k=v``."""
    match row.type:
        case inspect.ListType():
            return [item.strip() for item in text.split(",") if item.strip()]
        case inspect.DictType():
            return dict(item.strip().partition("=")[::2] for item in text.split(",") if item.strip())
        case _:
            return text


@cache
def _holder(section: str, key: str) -> type[msgspec.Struct]:
    """A structure with one field, ``value``, of the setting's type: msgspec checks types of fields."""
    return msgspec.defstruct("field", [("value", _annotations(section)[key])])


@cache
def _annotations(section: str) -> dict[str, Any]:
    """The types of a section's settings, with their bounds, by key."""
    found = next(item.type for item in _struct(inspect.type_info(Settings)).fields if item.name == section)
    return get_type_hints(_struct(found).cls, include_extras=True)
