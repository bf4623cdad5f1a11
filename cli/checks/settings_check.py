"""What is wrong with settings that each read well: names that do not exist, pairs that make no sense, files that can't be used. Pure but for the files."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from virtflow.cli.checks.findings import Finding, bad, good, warn
from virtflow.cli.parts import part
from virtflow.runtime.config_files import SECTIONS
from virtflow.runtime.kafka.clients import OAUTHBEARER
from virtflow.runtime.secrets import CREDENTIALS, plain_url, secret_in, secret_names
from virtflow.runtime.settings import Exporter, History, Kafka, Registry, Settings
from virtflow.schemas.catalogue.metrics import INVENTORY_LABELS, METRICS
from virtflow.schemas.catalogue.types import Group, Own

SECRETS = CREDENTIALS | {"kafka.oauth_token_file", "adapter.tls_key_file", "adapter.kubernetes_key_file", "adapter.prometheus_token_file"}
FILES = (
    *sorted(SECRETS),
    "kafka.oauth_ca_file",
    "kafka.tls_ca_file",
    "kafka.tls_certificate_file",
    "registry.tls_ca_file",
    "exporter.history_tls_ca_file",
    "adapter.tls_certificate_file",
    "adapter.kubernetes_ca_file",
    "adapter.kubernetes_token_file",
    "adapter.kubernetes_certificate_file",
    "adapter.prometheus_ca_file",
)
_PASSWORD = ("sasl_username", "sasl_password_file")
_ENDPOINT = ("oauth_token_url", "oauth_client_id", "oauth_client_secret_file")
_ENDPOINT_MORE = ("oauth_scope", "oauth_ca_file")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HISTORY_SERVER = ("history_tls_ca_file", "history_username", "history_password_file", "history_token_file", "history_tenant_header")
"""What counts only where a history server is named."""
EVERYWHERE = frozenset({"kafka", "registry"})
"""Sections of clients that every service may have."""
S3 = ("s3://", "s3a://")
INTERVALS_READ_BACK = 3
"""Samples that are older than this many intervals are not shown, so reading back more brings nothing and less leaves a gap."""


def contradictions(settings: Settings) -> Iterator[Finding]:
    """Settings that contradict one another."""
    yield from _security(settings.kafka)
    yield from _registry(settings.registry)
    yield from _history_server(settings.exporter)
    yield from _object_store(settings.history)
    exporter, interval = settings.exporter, settings.producer.interval_seconds
    if 0 < exporter.read_back_seconds < INTERVALS_READ_BACK * interval:
        yield bad(
            "setting",
            f"exporter.read_back_seconds = {exporter.read_back_seconds:g}",
            f"less than three intervals of {interval:g} s: a restart of the exporter leaves a gap",
            f"set it to {INTERVALS_READ_BACK * interval:g} or more",
        )
    yield from _discovery(settings)
    yield from unknown_names(settings)


def _discovery(settings: Settings) -> Iterator[Finding]:
    if not settings.libvirt.discover:
        return
    for one in part("virtflow.producer.daemons.scope", "producer").contradictions(settings):
        yield bad("setting", one.key, f"{one.why}, and libvirt.discover is set", one.fix)


def unknown_names(settings: Settings) -> Iterator[Finding]:
    """Groups, metrics and labels that do not exist."""
    served = [metric.name for metric in METRICS if not isinstance(metric.source, Own) or metric.source.service in {"exporter", "all"}]
    chosen = [*(group.value for group in Group), *served]
    for key, names, known, command in (
        ("exporter.include", settings.exporter.include, chosen, "`virtflow metrics list` shows groups and metrics"),
        ("exporter.exclude", settings.exporter.exclude, chosen, "`virtflow metrics list` shows groups and metrics"),
        ("exporter.vm_labels", settings.exporter.vm_labels, ["name", *INVENTORY_LABELS], f"one of name, {', '.join(INVENTORY_LABELS)}"),
    ):
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                yield bad("setting", f"{key} has {name!r}", "there is no such name", f"did you mean {near[0]}?" if near else command)


def _security(kafka: Kafka) -> Iterator[Finding]:
    tls = kafka.security_protocol.endswith("SSL")
    protocol = f"kafka.security_protocol = {kafka.security_protocol!r}"
    yield from _sasl(kafka, protocol)
    for key in ("tls_ca_file", "tls_certificate_file", "tls_key_file", "tls_key_password_file"):
        if not tls and getattr(kafka, key):
            yield bad("setting", protocol, f"kafka.{key} has no effect with it", "set kafka.security_protocol to SSL or SASL_SSL")
    if found := secret_names(kafka.client):
        why = f"{', '.join(found)}: a secret that everyone who can read the settings sees"
        yield bad(
            "setting", "kafka.client", why, "use kafka.sasl_password_file, kafka.oauth_client_secret_file or kafka.tls_key_password_file"
        )
    if kafka.tls_key_password_file and not kafka.tls_key_file:
        yield bad("setting", "kafka.tls_key_password_file", "is set, but kafka.tls_key_file is not", "set both or none")
    if bool(kafka.tls_certificate_file) != bool(kafka.tls_key_file):
        have, lack = ("certificate", "key") if kafka.tls_certificate_file else ("key", "certificate")
        yield bad("setting", f"kafka.tls_{have}_file", f"is set, but kafka.tls_{lack}_file is not", "set both or none")


def _sasl(kafka: Kafka, protocol: str) -> Iterator[Finding]:
    """What the chosen way of SASL needs and does not have, and what has no effect with it."""
    wanted, taken, way = _sasl_way(kafka, protocol)
    for key in wanted:
        if not getattr(kafka, key):
            yield bad("setting", way, f"needs kafka.{key}, which is empty", f"set kafka.{key}")
    for key in ("sasl_mechanism", *_PASSWORD, *_ENDPOINT, *_ENDPOINT_MORE, "oauth_token_file"):
        if key not in taken and getattr(kafka, key):
            fix = f"unset kafka.{key}" if taken else "set kafka.security_protocol to SASL_SSL or SASL_PLAINTEXT"
            yield bad("setting", way, f"kafka.{key} has no effect with it", fix)
    if _in_clear(url := kafka.oauth_token_url):
        yield warn(
            "setting", f"kafka.oauth_token_url = {plain_url(url)!r}", "the client's secret goes over the network in clear", "use https"
        )


def _in_clear(url: str) -> bool:
    """Whether others can listen to what is sent to a URL."""
    parts = urlsplit(url)
    return parts.scheme == "http" and (parts.hostname or "") not in LOOPBACK


def _sasl_way(kafka: Kafka, protocol: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """The settings of SASL that are needed, those that have an effect, and the setting that decides it."""
    if not kafka.security_protocol.startswith("SASL"):
        return (), (), protocol
    if kafka.sasl_mechanism != OAUTHBEARER:
        needed = ("sasl_mechanism", *_PASSWORD)
        return needed, needed, f"kafka.sasl_mechanism = {kafka.sasl_mechanism!r}" if kafka.sasl_mechanism else protocol
    if kafka.oauth_token_file:
        return (), ("sasl_mechanism", "oauth_token_file"), f"kafka.oauth_token_file = {kafka.oauth_token_file!r}"
    return _ENDPOINT, ("sasl_mechanism", *_ENDPOINT, *_ENDPOINT_MORE), f"kafka.sasl_mechanism = {kafka.sasl_mechanism!r}"


def _registry(registry: Registry) -> Iterator[Finding]:
    if bool(registry.username) != bool(registry.password_file):
        have, lack = ("username", "password_file") if registry.username else ("password_file", "username")
        yield bad("setting", f"registry.{have}", f"is set, but registry.{lack} is not", "set both or none")


def _history_server(exporter: Exporter) -> Iterator[Finding]:
    """The server that the fleet page asks for days to years."""
    named = [key for key in HISTORY_SERVER if getattr(exporter, key)]
    if named and not exporter.history_url:
        yield bad("setting", f"exporter.{named[0]}", "has no effect without exporter.history_url", "set exporter.history_url")
    elif exporter.history_url and not exporter.fleet_page:
        yield bad("setting", "exporter.history_url", "has no effect without exporter.fleet_page", "set exporter.fleet_page")
    if bool(exporter.history_username) != bool(exporter.history_password_file):
        have, lack = ("username", "password_file") if exporter.history_username else ("password_file", "username")
        yield bad("setting", f"exporter.history_{have}", f"is set, but exporter.history_{lack} is not", "set both or none")
    if exporter.history_tls_ca_file and not exporter.history_url.lower().startswith("https:"):
        yield bad(
            "setting", "exporter.history_tls_ca_file", "has no effect without https in exporter.history_url", "write the URL as https://"
        )
    secret = exporter.history_password_file or exporter.history_token_file
    if secret and _in_clear(exporter.history_url):
        yield warn(
            "setting", "exporter.history_url", "is asked without TLS: the secret can be read on the way", "write the URL as https://"
        )


def _object_store(history: History) -> Iterator[Finding]:
    if found := secret_names(history.storage):
        why = f"{', '.join(found)}: a secret that everyone who can read the settings sees"
        yield bad("setting", "history.storage", why, "use history.s3_secret_key_file, or the service's environment")
    if why := secret_in(history.path):
        yield bad("setting", f"history.path = {plain_url(history.path)!r}", why, "use the files of keys: history.s3_access_key_file")
    if bool(history.s3_access_key_file) != bool(history.s3_secret_key_file):
        have, lack = ("access", "secret") if history.s3_access_key_file else ("secret", "access")
        yield bad("setting", f"history.s3_{have}_key_file", f"is set, but history.s3_{lack}_key_file is not", "set both or none")
    for key in ("s3_endpoint", "s3_access_key_file", "s3_secret_key_file"):
        if getattr(history, key) and not history.path.startswith(S3):
            yield bad(
                "setting",
                f"history.path = {plain_url(history.path)!r}",
                f"history.{key} has no effect with it",
                "write it as s3://BUCKET/PREFIX",
            )


def files(settings: Settings, read: Iterable[Path], services: frozenset[str]) -> Iterator[Finding]:
    """The files that the settings name, and those that the settings were ``read`` from: there, readable, and closed to others where they must be.

    Those of the history only where it is among ``services``: on another host they need not be there.
    """
    for config in read:
        if config.is_file():
            yield file_finding("settings", config, secret=False)
    for name in FILES:
        section, _, key = name.partition(".")
        if (path := getattr(getattr(settings, section), key)) and (
            section in EVERYWHERE or section in services or _of_node(section, services)
        ):
            yield file_finding(name, Path(path), secret=name in SECRETS)
    if "node" in services and settings.exporter.keep_last:
        yield _kept(Path(settings.exporter.keep_file).absolute(), "exporter.keep_file")


def _of_node(section: str, services: frozenset[str]) -> bool:
    """`virtflow node` serves what the exporter serves, by the same settings."""
    return section == "exporter" and "node" in services


def unread(path: Path) -> Finding:
    """A file beside the settings' own that no part reads: whoever wrote it believes that it counts."""
    parts = sorted(SECTIONS)
    near = difflib.get_close_matches(path.stem.partition("@")[0], parts, n=1)
    fix = f"did you mean {near[0]}.toml?" if near else f"name it after its part: {', '.join(parts)}"
    return warn("file", str(path), "no part reads it", fix)


def _kept(path: Path, key: str) -> Finding:
    """A file that is replaced as a whole: what is there can be read, and its folder can be written."""
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK)):
        return bad("file", str(path), f"no file that user {os.geteuid()} can read ({key})", f"remove it, or choose another with {key}")
    return folder(path.parent, key)


def file_finding(thing: str, path: Path, *, secret: bool) -> Finding:
    """Whether a file is there, readable, not empty, and closed to others: against writing, and against reading where it is a secret."""
    try:
        mode = path.stat().st_mode
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        return bad(
            "file",
            plain_url(str(path)),
            f"{getattr(error, 'strerror', None) or 'no path of a file'} ({thing})",
            f"let user {os.geteuid()} read it, or name another",
        )
    shown = f"{stat.filemode(mode)} ({thing})"
    if secret and mode & stat.S_IRWXO:
        return bad("file", str(path), f"other users can use this secret: {shown}", f"chmod o= {path}")
    if mode & stat.S_IWOTH:
        return bad("file", str(path), f"other users can change it: {shown}", f"chmod o-w {path}")
    if not text.strip() and thing != "settings":  # settings that say nothing are all defaults
        return bad("file", str(path), f"empty ({thing})", "write what it must hold, or unset the setting")
    return good("file", str(path), shown)


def folder(path: Path, key: str) -> Finding:
    """Whether this user can write into a folder, or make it where it is missing."""
    # Unlike Path.exists, access says no where a folder above can't be searched.
    there = next((parent for parent in (path, *path.parents) if os.access(parent, os.F_OK)), Path(path.anchor))
    if not there.is_dir():
        return bad("folder", str(path), f"{there} is no folder ({key})", f"remove it, or choose another folder with {key}")
    if not os.access(there, os.W_OK | os.X_OK):
        return bad("folder", str(path), f"user {os.geteuid()} can't write in {there} ({key})", f"chown {there} to the service's user")
    return good("folder", str(path), f"{'writable' if there == path else 'can be made'} ({key})")
