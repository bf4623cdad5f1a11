"""The web configuration file: what Prometheus' exporter-toolkit reads, with the same names, defaults and strictness.

Source of the format: docs/web-configuration.md of prometheus/exporter-toolkit. What OpenSSL under Python can't do is refused, never ignored:
asking for client certificates without verifying them, TLS before 1.2, and an order of several curves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from msgspec import Struct, field

from virtflow.runtime.named_files import text_of
from virtflow.runtime.secrets import HIDDEN, PEM
from virtflow.schemas.errors import EnvironmentProblemError, SettingError

VERSIONS: Final = ("TLS12", "TLS13")
OLD_VERSIONS: Final = ("TLS10", "TLS11")
VERIFYING: Final = ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
REQUIRING: Final = "RequireAndVerifyClientCert"
NOT_VERIFYING: Final = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
CURVES: Final = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
"""Go's names and OpenSSL's."""
TLS13_SUITES: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Always on with TLS 1.3, here as in Go: naming them changes nothing."""
_SUITE: Final = re.compile(r"TLS_ECDHE_(ECDSA|RSA)_WITH_(AES_(?:128|256)_(?:GCM|CBC)|CHACHA20_POLY1305)_(SHA(?:256|384)?)")
_GO_SUITES: Final = frozenset(
    {
        *(f"TLS_ECDHE_{kind}_WITH_AES_{bits}_CBC_SHA" for kind in ("ECDSA", "RSA") for bits in (128, 256)),
        *(f"TLS_ECDHE_{kind}_WITH_AES_{bits}" for kind in ("ECDSA", "RSA") for bits in ("128_GCM_SHA256", "256_GCM_SHA384")),
        *(f"TLS_ECDHE_{kind}_WITH_CHACHA20_POLY1305_SHA256" for kind in ("ECDSA", "RSA")),
    }
)
"""What Go's ``tls.CipherSuites`` returns for TLS 1.2."""
HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
"""Headers that can be set, and their values where not every one is allowed."""
_BCRYPT: Final = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}")
COSTS: Final = range(4, 32)
_DURATION_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECRETS: Final = ("basic_auth_users", "tls_server_config.key")
_QUOTED: Final = re.compile(r"(['\"]).*\1", re.DOTALL)
_HALF: Final = re.compile("[\ud800-\udfff]")
_NO_KEY: Final = "there is no such key"


class TlsServer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``tls_server_config`` as it is written; files are relative to the configuration's folder."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_auth_type: str = ""
    client_ca_file: str = ""
    client_allowed_sans: list[str] | None = None
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: list[str] = field(default_factory=list)
    prefer_server_cipher_suites: bool = True
    curve_preferences: list[str] = field(default_factory=list)

    @property
    def enabled(self) -> bool:
        """Whether TLS is meant: one of the settings that only it has is there."""
        return any((self.cert, self.key, self.cert_file, self.key_file, self.client_ca, self.client_ca_file, self.client_auth_type))


class _HttpServer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    http2: bool = True
    headers: dict[str, str] = field(default_factory=dict)


class _RateLimit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    interval: str | int = 0
    burst: int = 0


class _Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tls_server_config: TlsServer = field(default_factory=TlsServer)
    http_server_config: _HttpServer = field(default_factory=_HttpServer)
    basic_auth_users: dict[str, str] = field(default_factory=dict)
    rate_limit: _RateLimit = field(default_factory=_RateLimit)


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: one request every ``interval_seconds``, and ``burst`` at once."""

    interval_seconds: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """A file that reads well. ``users`` maps names to bcrypt hashes; ``tls`` is None where plain HTTP is served."""

    path: Path
    tls: TlsServer | None = None
    headers: Mapping[str, str] = dataclass_field(default_factory=dict)
    users: Mapping[str, bytes] = dataclass_field(default_factory=dict)
    rate: Rate | None = None

    def file(self, name: str) -> Path:
        """The path of a file that the configuration names."""
        return self.path.parent / name

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it names."""
        tls = self.tls
        names = (tls.cert_file, tls.key_file, tls.client_ca_file) if tls else ()
        return tuple(self.file(name) for name in names if name)


def read(path: Path) -> tuple[WebConfig | None, list[SettingError]]:
    """The configuration and everything that is wrong with it; None where it can't be read at all. Looks into no other file."""
    try:
        document = _document(path)
    except SettingError as error:
        return None, [error]
    tls = document.tls_server_config
    rate = document.rate_limit
    errors = [*_tls_errors(path, tls), *_header_errors(path, document), *_user_errors(path, document), *_rate_errors(path, rate)]
    interval = duration_seconds(rate.interval) or 0.0
    return (
        WebConfig(
            path,
            tls if tls.enabled else None,
            {name: value for name, value in document.http_server_config.headers.items() if value},
            {user: hashed.encode() for user, hashed in document.basic_auth_users.items()},
            Rate(interval, rate.burst) if interval else None,
        ),
        errors,
    )


def load(path: Path) -> WebConfig:
    """The configuration; raises the first ``SettingError`` where something is wrong with it."""
    config, errors = read(path)
    if errors or config is None:
        raise errors[0]
    return config


def bcrypt_cost(hashed: str) -> int | None:
    """The cost of a bcrypt hash, None where the text is none."""
    found = _BCRYPT.fullmatch(hashed)
    return int(found[1]) if found and int(found[1]) in COSTS else None


def openssl_suite(name: str) -> str:
    """OpenSSL's name of one of Go's suites for TLS 1.2; "" for those of TLS 1.3, which are always on."""
    found = _SUITE.fullmatch(name)
    if found is None:
        return ""
    kind, cipher, digest = found.groups()
    cipher = cipher.replace("_CBC", "").replace("AES_", "AES").replace("_", "-")
    return f"ECDHE-{kind}-{cipher}" + ("" if "CHACHA" in cipher else f"-{digest}")


def duration_seconds(text: str | int) -> float | None:
    """A duration as Go writes it (``1.5s``, ``1m30s``, ``100ms``, ``0``); None where it is none."""
    words = str(text)
    if words == "0":
        return 0.0
    parts = list(_DURATION.finditer(words))
    if not parts or "".join(part[0] for part in parts) != words:
        return None
    return sum(float(part[1]) * _DURATION_UNITS[part[2]] for part in parts)


def problem(path: Path, key: str, value: object, why: str, fix: str) -> SettingError:
    """The error for one key of the file."""
    return SettingError(origin=f"file {path}", key=key, value=value, why=why, fix=fix)


def _document(path: Path) -> _Document:
    raw = _parsed(path, text_of(path, "web.config_file"))
    try:
        return msgspec.convert(_without_empty(raw), _Document)
    except msgspec.ValidationError as error:
        key, why = _place(str(error))
        fix = "docs/secure.md lists the keys; it is the format of Prometheus' exporter-toolkit"
        # Under a name that does not exist may stand a password or a key.
        raise problem(path, key, HIDDEN if why == _NO_KEY else _value(raw, key), why, fix) from error


def _without_empty(raw: object) -> object:
    """A section without anything in it is as one that is not there."""
    if raw is None:
        return {}
    return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


def _parsed(path: Path, text: str) -> Any:  # noqa: ANN401, what the file holds
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise EnvironmentProblemError(
            thing="package", value="yaml", why="not installed", fix="install it with pip install 'virtflow[exporter]'"
        ) from error

    class Twice(yaml.constructor.ConstructorError):
        """A key is there twice."""

    class Strict(yaml.SafeLoader):
        """Refuses a key that is there twice, and says of a value that it is not what its tag or its form says."""

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002, the library's own
            try:
                found = super().construct_object(node, deep)
            except (ValueError, KeyError, AttributeError, TypeError) as error:  # the library checks a value's form after its tag alone
                why = "a value is not of the kind that its form says: write it in quotes"
                raise yaml.constructor.ConstructorError(None, None, why, node.start_mark) from error
            if isinstance(found, str) and _HALF.search(found):
                raise yaml.constructor.ConstructorError(None, None, "a text holds half of a character", node.start_mark)
            return found

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            key = cast("Any", loader.construct_object(key_node, deep=True))
            if key in found:
                raise Twice(None, None, f"{key!r} is there twice", key_node.start_mark)
            found[key] = loader.construct_object(value_node, deep=True)
        return found

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(text, Loader=Strict)  # noqa: S506, a safe loader
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        words = getattr(error, "problem", None) or getattr(error, "reason", None) or "nested too deeply"
        # The library quotes what it stumbled over, which may be a password: `*`, `!` and `&` in front of a text mean something in YAML.
        why = f"no YAML: {words if isinstance(error, Twice) else _QUOTED.sub(HIDDEN, words)}{line}"
        raise problem(path, "(whole file)", path.name, why, "fix that line; `promtool check web-config FILE` reads it too") from error


def _place(message: str) -> tuple[str, str]:
    """Key and reason of msgspec's message: ``Expected `int`, got `str` - at `$.rate_limit.burst```."""
    why, _, place = message.partition(" - at ")
    found = re.search(r"\$\.?([^`]*)`$", place)
    key = found[1] if found else ""
    unknown = re.fullmatch(r"Object contains unknown field `([^`]*)`", why)
    if unknown:
        return f"{key}.{unknown[1]}".lstrip("."), _NO_KEY
    return key or "(whole file)", why


def _value(raw: object, key: str) -> object:
    """What stands in the file at ``key``, without secrets."""
    if key.startswith(_SECRETS):
        return HIDDEN
    found = raw
    for step in key.split("."):
        found = found.get(step, "") if isinstance(found, dict) else ""
    if isinstance(found, str) and PEM in found:
        return HIDDEN
    return found if isinstance(found, str | int | float | bool) else type(found).__name__


def _tls_errors(path: Path, tls: TlsServer) -> Iterator[SettingError]:
    if not tls.enabled:
        return
    section = "tls_server_config"
    if inside := next((name for name in ("cert_file", "key_file", "client_ca_file") if PEM in getattr(tls, name)), ""):
        inline = inside.removesuffix("_file")
        yield problem(
            path, f"{section}.{inside}", HIDDEN, "is the text of a PEM file, not its name", f"write it as {inline}, or name a file"
        )
        return
    for inline, file in (("cert", "cert_file"), ("key", "key_file"), ("client_ca", "client_ca_file")):
        have_inline, have_file = bool(getattr(tls, inline)), bool(getattr(tls, file))
        if have_inline and have_file:
            yield problem(path, f"{section}.{file}", getattr(tls, file), f"{inline} is set, too", "keep one of the two")
        elif not have_inline and not have_file and inline != "client_ca":
            yield problem(path, f"{section}.{file}", "", f"TLS needs {inline} or {file}", f"set {file} to a PEM file")
    yield from _client_errors(path, tls)
    yield from _protocol_errors(path, tls)


def _client_errors(path: Path, tls: TlsServer) -> Iterator[SettingError]:
    key, kind = "tls_server_config.client_auth_type", tls.client_auth_type
    have_ca = bool(tls.client_ca or tls.client_ca_file)
    if kind in NOT_VERIFYING:
        why = "asks for certificates without verifying them, which proves nothing and is not offered"
        yield problem(path, key, kind, why, f"use {REQUIRING}")
    elif kind not in {"", "NoClientCert", *VERIFYING}:
        yield problem(path, key, kind, "there is no such policy", f"one of NoClientCert, {', '.join(VERIFYING)}")
    elif kind in VERIFYING and not have_ca:
        yield problem(path, key, kind, "needs client_ca_file, which is empty", "set client_ca_file to the CA of the clients' certificates")
    elif kind not in VERIFYING and have_ca:
        yield problem(path, key, kind, "client_ca_file has no effect without a policy", f"set client_auth_type to {REQUIRING}")
    if tls.client_allowed_sans is not None and kind != REQUIRING:
        fix = f"set client_auth_type to {REQUIRING}"
        yield problem(
            path, "tls_server_config.client_allowed_sans", tls.client_allowed_sans, "needs every client to have a certificate", fix
        )


def _protocol_errors(path: Path, tls: TlsServer) -> Iterator[SettingError]:
    section = "tls_server_config"
    for key in ("min_version", "max_version"):
        value = getattr(tls, key)
        if value in OLD_VERSIONS:
            yield problem(path, f"{section}.{key}", value, "TLS before 1.2 is not safe and not offered", "use TLS12 or TLS13")
        elif value not in VERSIONS:
            yield problem(path, f"{section}.{key}", value, "there is no such version", "use TLS12 or TLS13")
    if (tls.min_version, tls.max_version) == ("TLS13", "TLS12"):
        yield problem(path, f"{section}.max_version", tls.max_version, "is below min_version", "use TLS13")
    for suite in tls.cipher_suites:
        if suite not in _GO_SUITES and suite not in TLS13_SUITES:
            fix = f"one of {', '.join(sorted(_GO_SUITES))}"
            yield problem(path, f"{section}.cipher_suites", suite, "there is no such suite, or it is not safe", fix)
    for curve in tls.curve_preferences:
        if curve not in CURVES:
            yield problem(path, f"{section}.curve_preferences", curve, "there is no such curve", f"one of {', '.join(CURVES)}")
    if len(tls.curve_preferences) > 1:
        why = "an order of several curves can't be set"
        yield problem(path, f"{section}.curve_preferences", tls.curve_preferences, why, "name one, or leave it out for OpenSSL's own order")


def _header_errors(path: Path, document: _Document) -> Iterator[SettingError]:
    for name, value in document.http_server_config.headers.items():
        key = f"http_server_config.headers.{name}"
        if name not in HEADERS:
            yield problem(path, key, value, "this header can't be set", f"one of {', '.join(HEADERS)}")
        elif HEADERS[name] and value and value not in HEADERS[name]:
            yield problem(path, key, value, "this header has no such value", f"one of {', '.join(HEADERS[name])}")
        elif "\n" in value or "\r" in value:
            yield problem(path, key, value, "a header is one line", "remove the line break")


def _user_errors(path: Path, document: _Document) -> Iterator[SettingError]:
    for user, hashed in document.basic_auth_users.items():
        key = f"basic_auth_users.{user}"
        if not user or ":" in user:
            yield problem(path, key, user, "HTTP knows no such user name", "choose a name without a colon")
        if bcrypt_cost(hashed) is None:
            fix = "make one with `htpasswd -nBC 10 USER` and write what follows the colon"
            yield problem(path, key, HIDDEN, "is no bcrypt hash", fix)


def _rate_errors(path: Path, rate: _RateLimit) -> Iterator[SettingError]:
    seconds = duration_seconds(rate.interval)
    if seconds is None:
        yield problem(path, "rate_limit.interval", rate.interval, "is no duration", "write 100ms, 1s or 1m30s; 0 sets no limit")
    elif seconds and rate.burst < 1:
        yield problem(path, "rate_limit.burst", rate.burst, "refuses every request", "set it to 1 or more")
