"""What is wrong with the web configuration, and which addresses are open to everyone who reaches them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from virtflow.cli.checks.findings import Finding, bad, good, of_problem, of_setting, warn
from virtflow.cli.checks.settings_check import file_finding
from virtflow.runtime.access.rules import Rules, exposure, read_rules
from virtflow.runtime.access.web_config import TlsServer, WebConfig, bcrypt_cost, read
from virtflow.runtime.certificates import first_certificate
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError, SettingError

SOON_SECONDS = 14 * 86_400
"""A certificate that ends earlier is reported."""


def listening(settings: Settings, services: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The addresses that services listen on, each with the setting that names it."""
    yield from addresses(settings, services)
    if "adapter" in services:
        yield settings.adapter.api_listen, "adapter.api_listen"


def addresses(settings: Settings, services: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Those of them that the web settings are for. The adapter's APIs have a certificate, and clients, of their own."""
    for listen, key, users in (
        (settings.processors.listen, "processors.listen", {"processors"}),
        (settings.exporter.listen, "exporter.listen", {"exporter", "node"}),
        (settings.adapter.listen, "adapter.listen", {"adapter"}),
        (settings.history.listen, "history.listen", {"history"}),
        (settings.history.serve_listen, "history.serve_listen", {"history"}),
    ):
        if services & users:
            yield listen, key


def findings(settings: Settings, services: frozenset[str]) -> Iterator[Finding]:
    """The web settings and the files that they name, then each address that they leave open. Nothing where no service listens."""
    served = list(addresses(settings, services))
    if not served:
        return
    found = list(_configuration(settings))
    yield from found
    if all(finding.ok for finding in found):
        yield from _open_addresses(read_rules(settings.web), served)


def _configuration(settings: Settings) -> Iterator[Finding]:
    web = settings.web
    if web.config_file:
        yield from _config_file(Path(web.config_file))
    if web.tokens_file:
        yield file_finding("web.tokens_file", Path(web.tokens_file), secret=True)
    try:
        rules = read_rules(web)
    except SettingError as error:
        if not error.origin.startswith("file "):
            yield of_setting(error)
    except EnvironmentProblemError as error:
        yield of_problem(error)
    else:
        yield from _rights(rules)


def _config_file(path: Path) -> Iterator[Finding]:
    try:
        config, errors = read(path)
    except EnvironmentProblemError:
        return
    if config is None:
        if errors[0].origin.startswith("file "):
            yield of_setting(errors[0])
        return
    yield from map(of_setting, errors)
    tls = config.tls
    yield file_finding("web.config_file", path, secret=bool(config.users or (tls and tls.key)))
    if tls is not None:
        yield from _tls_files(config, tls)
    if not errors:
        yield from _usable(config)
        yield from _costs(config)


def _tls_files(config: WebConfig, tls: TlsServer) -> Iterator[Finding]:
    for name, key in ((tls.cert_file, "cert_file"), (tls.client_ca_file, "client_ca_file"), (tls.key_file, "key_file")):
        if not name:
            continue
        found = file_finding(f"tls_server_config.{key} of {config.path}", config.file(name), secret=key == "key_file")
        yield found
        if found.ok and key != "key_file":
            yield _dates(config.file(name))


def _dates(path: Path) -> Finding:
    now = time.time()
    try:
        certificate = first_certificate(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        return bad("certificate", str(path), str(error), "write the certificate as PEM")
    if why := certificate.problem(now):
        return bad("certificate", str(path), f"{why}: {certificate}", "put a new certificate in its place: it is read without a restart")
    if certificate.ends - now < SOON_SECONDS:
        fix = "put a new certificate in its place: it is read without a restart"
        return warn("certificate", str(path), f"ends soon: {certificate}", fix)
    return good("certificate", str(path), str(certificate))


def _usable(config: WebConfig) -> Iterator[Finding]:
    """Whether certificate, key and CA work together: what reading each of them does not tell."""
    from virtflow.runtime.access.tls import server_context

    try:
        server_context(config)
    except SettingError as error:
        if error.why not in {"No such file or directory", "Permission denied"}:  # told of the file itself
            yield of_setting(error)


def _costs(config: WebConfig) -> Iterator[Finding]:
    costs = {user: bcrypt_cost(hashed.decode()) or 0 for user, hashed in config.users.items()}
    if len(set(costs.values())) > 1:
        shown = ", ".join(f"{user} {cost}" for user, cost in costs.items())
        why = f"hashes of different costs ({shown}): the time of an answer tells which users there are"
        yield warn("setting", f"basic_auth_users of {config.path}", why, "hash all passwords with one cost, for example 10")


def _rights(rules: Rules) -> Iterator[Finding]:
    if rules.secrets:
        known = {*rules.users, *rules.tokens.values()}
        for name in sorted(rules.rights.names - known):
            fix = "name a user of basic_auth_users or of web.tokens_file"
            yield bad("setting", f"web.rights.{name}", "there is no such user and no such token", fix)
    elif rules.rights.names and not (rules.context and rules.context.verify_mode):
        why = "has no effect without passwords, tokens or client certificates: everyone is refused"
        yield bad("setting", "web.rights", why, "set web.config_file or web.tokens_file (docs/secure.md)")


def _open_addresses(rules: Rules, served: list[tuple[str, str]]) -> Iterator[Finding]:
    for listen, key in served:
        why, fix = exposure(listen, rules)
        if why:
            yield warn("address", listen, f"{why} ({key})", fix)
