"""Checks what a service needs from its environment. Each check has its own timeout: nothing waits indefinitely."""

from __future__ import annotations

import errno
import http.client
import logging
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlsplit

from virtflow.cli.checks import daemons
from virtflow.cli.checks.findings import Finding, bad, good, of_problem, of_setting
from virtflow.cli.parts import install_command, part
from virtflow.runtime.kafka.acls import Part, acls, reads_settings, topics_of
from virtflow.runtime.kafka.broker_problem import server_certificate
from virtflow.runtime.secrets import plain_url
from virtflow.runtime.settings import Settings
from virtflow.schemas.errors import EnvironmentProblemError, RegistryUnavailableError, SettingError
from virtflow.schemas.topics import TOPICS

BROKER_SECONDS: Final = 5.0
"""How long the broker may take to answer before it counts as away."""
HTTP_PORT: Final = 80
TURN_SECONDS: Final = 0.2
"""How long Ctrl-C may go unnoticed."""
OWN_ANSWER_SECONDS: Final = 2.0
"""How long a service of ours may take to say who it is."""

SERVING: Final = ("aiohttp", "bcrypt", "prometheus_client", "yaml")
"""What serving HTTP takes."""
PACKAGES: Final = {
    "producer": ("libvirt", "confluent_kafka"),
    "processors": ("faust", "confluent_kafka", "fastavro", *SERVING),
    "history": ("deltalake", "pyarrow", "duckdb", "numpy", "confluent_kafka", "fastavro", *SERVING),
    "exporter": ("confluent_kafka", "fastavro", "isal", "numpy", *SERVING),
    "adapter": ("confluent_kafka", "fastavro", *SERVING),
}
"""What each extra brings that its service imports."""


DRIVERS: Final = frozenset(
    [
        "qemu",
        "xen",
        "lxc",
        "test",
        "vbox",
        "esx",
        "vpx",
        "gsx",
        "hyperv",
        "bhyve",
        "openvz",
        "ch",
        "vz",
        "parallels",
        "vmwareplayer",
        "vmwarews",
        "vmwarefusion",
    ]
)
"""libvirt's hypervisor drivers (source: its documentation of URIs)."""
QEMU_PATHS: Final = frozenset({"/system", "/session", "/embed"})
_BAD_URI: Final = (
    "no connection driver",
    "URI path",
    "unexpected",
    "Unable to parse URI",
    "unsupported",
    "invalid URI",
    "is not supported",
)
"""libvirt's words for a URI that names no hypervisor it knows."""


def missing_packages(extra: str) -> list[str]:
    """The packages that a part imports, and that are not installed."""
    return [name for name in PACKAGES[extra] if find_spec(name) is None]


def packages(extra: str) -> Iterator[Finding]:
    """The packages that a part imports."""
    if missing := missing_packages(extra):
        yield bad("packages", f"virtflow[{extra}]", f"not installed: {', '.join(missing)}", install_command(extra, missing))
    else:
        yield good("packages", f"virtflow[{extra}]", "installed")


def starts(settings: Settings, services: frozenset[str]) -> Iterator[Finding]:
    """What a service refuses to start with although each setting reads well: it is built here as the service builds it, and connects to nothing."""
    for extra, module, name, parts in (
        ("exporter", "virtflow.exporter.service", "Exporter", {"exporter", "node"}),
        ("history", "virtflow.history.remote_read.tenants", "Tenants", {"history"}),
        ("adapter", "virtflow.adapter.tls", "Certificates", {"adapter"}),
    ):
        if not services & parts or missing_packages(extra):
            continue
        try:
            getattr(part(module, extra), name)(settings if extra == "exporter" else getattr(settings, extra))
        except SettingError as error:
            yield of_setting(error)
        except EnvironmentProblemError as error:
            yield of_problem(error)


def storage(settings: Settings) -> Iterator[Finding]:
    """Checks the history's storage: reachable, writable, safe for two writers, with free space, and with tables that this version can read."""
    if missing_packages("history"):
        return
    try:
        store = part("virtflow.history.storage.delta", "history").Store(settings.history)
    except SettingError as error:
        yield of_setting(error)
        return
    for judged in part("virtflow.history.storage.probe", "history").judge(store):
        yield Finding(ok=judged.ok, thing="history storage", value=str(store), detail=judged.what, fix=judged.fix)


def libvirt(settings: Settings) -> Iterator[Finding]:
    """Checks libvirt: connects as the producer does, and makes the calls that never wait for a VM."""
    if find_spec("libvirt") is None:
        return
    connection = part("virtflow.producer.hypervisor.connection", "producer")
    messages = part("virtflow.producer.hypervisor.messages", "producer")
    if settings.libvirt.discover:
        logging.getLogger("virtflow.producer").setLevel(logging.CRITICAL)
        yield from daemons.findings(settings, _read)
        return
    config, box = settings.libvirt, part("virtflow.producer.hypervisor.mailbox", "producer").Inbox()
    shown = plain_url(config.uri)
    if problem := uri_problem(config.uri):
        yield bad("libvirt", shown, problem, _libvirt_fix(problem))
        return
    logging.getLogger("virtflow.producer").setLevel(logging.CRITICAL)
    worker = connection.Worker(1, "check", connection.Opener(config), box)
    deadline = time.monotonic() + config.connect_timeout_seconds
    opened = _take(box, deadline)
    if isinstance(opened, messages.Opened):
        worker.submit(1, _read)
        answer = _take(box, deadline)
        worker.retire()
        yield _read_finding(shown, answer)
    elif opened is None:
        fix = "is libvirtd stopped or overloaded? `systemctl status libvirtd`; libvirt.connect_timeout_seconds is the limit"
        yield bad("libvirt", shown, f"no answer within {config.connect_timeout_seconds:g} s", fix)
    else:
        yield bad("libvirt", shown, _words(opened.error), _libvirt_fix(opened.error))


def _take(box: Any, deadline: float) -> Any:  # noqa: ANN401, the producer's inbox
    """The next message, or None at the deadline. Waits in short steps, because a signal that arrives just before a wait does not end it."""
    message = None
    while message is None and (now := time.monotonic()) < deadline:
        message = box.take(min(deadline, now + TURN_SECONDS))
    return message


def _read(connection: Any) -> tuple[int, str]:  # noqa: ANN401, libvirt's virConnect
    """The number of VMs and the daemon's version; makes only calls that never wait for a VM on that version."""
    from virtflow.producer.hypervisor.call_safety import stats_groups
    from virtflow.producer.hypervisor.queries import list_vms

    version = connection.getLibVersion()
    number = len(list_vms(stats_groups(version))(connection).vms)
    return number, f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


def _read_finding(uri: str, answer: Any) -> Finding:  # noqa: ANN401, a message of the producer's mailbox, or None
    if answer is None:
        return bad(
            "libvirt", uri, "connected, but the VMs' statistics do not come", "are libvirtd's workers busy? `systemctl status libvirtd`"
        )
    if answer.error is not None:
        return bad("libvirt", uri, _words(answer.error), _libvirt_fix(str(answer.error)))
    number, version = answer.result
    return good("libvirt", uri, f"libvirt {version}, {number} VM{'' if number == 1 else 's'}, statistics readable")


def _libvirt_fix(words: str) -> str:
    if "Permission denied" in words or "authentication" in words or "polkit" in words:
        return "let the service's user open libvirt's read-only socket: unix_sock_ro_perms in /etc/libvirt/libvirtd.conf"
    if "No such file" in words or "refused" in words:
        return "start libvirtd (`systemctl start libvirtd`), or name another hypervisor with --connect"
    if is_bad_uri(words):
        return "name a libvirt URI with --connect, for example qemu:///system"
    return "name a hypervisor that answers with --connect; `virsh -c URI list` tries it too"


def uri_problem(uri: str) -> str:
    """Why no libvirt can have that URI, "" where one may: without a daemon libvirt itself says only that it found none."""
    scheme, colon, _ = uri.partition(":")
    driver, path = scheme.partition("+")[0], urlsplit(uri).path
    if colon and driver not in DRIVERS:
        return f"no connection driver {driver!r} in libvirt"
    if colon and driver == "qemu" and path not in QEMU_PATHS:
        return f"URI path {path!r}: qemu has {', '.join(sorted(QEMU_PATHS))}"
    return ""


def is_bad_uri(words: str) -> bool:
    """Whether libvirt says that it knows no such hypervisor: starting a daemon does not help then."""
    return any(told in words for told in _BAD_URI)


def _words(error: BaseException | str) -> str:
    return str(error).strip().replace("\n", " ") or type(error).__name__


def broker_and_topics(settings: Settings, services: Iterable[str]) -> Iterator[Finding]:
    """Checks the broker, that each topic that the services use exists with the cleanup policy it needs, and that this user may use all of it.

    A service that does not read the topics' settings need not have the right to.
    """
    if find_spec("confluent_kafka") is None:
        return
    quiet = logging.getLogger("virtflow.kafka")
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    parts = [Part(service) for service in services if service in set(Part)]
    used = {topic for one in parts for topic in topics_of(one)}
    try:
        admin = part("virtflow.runtime.kafka.topic_admin", "producer").TopicAdmin(settings, BROKER_SECONDS)
        states = admin.states([topic for topic in TOPICS if topic in used])
        lacking = admin.lacking(acls(settings, *parts))
    except SettingError as error:
        yield of_setting(error)
        return
    except EnvironmentProblemError as error:
        yield of_problem(error)
        return
    yield good("broker", settings.kafka.bootstrap_servers, "answers")
    for state in states:
        needed = any(reads_settings(one) and state.topic in topics_of(one) for one in parts)
        if state.denied == "DescribeConfigs" and not needed:
            yield good("topic", state.name, f"{state.partitions} partitions; its settings are not for this user, and need not be")
        elif state.problem:
            yield bad("topic", state.name, state.problem, state.fix)
        else:
            yield good("topic", state.name, f"cleanup {state.cleanup}, {state.partitions} partitions")
    unreadable = {state.name for state in states if state.problem}
    for acl in lacking:
        if acl.name not in unreadable:
            fix = f"`virtflow topics acls --for {acl.part}` shows what is needed, and gives it with --apply"
            yield bad(acl.resource.value, acl.name, f"this user lacks the right to {acl.operation}, which {acl.part} needs", fix)


def registry(settings: Settings) -> Iterator[Finding]:
    """Checks the schema registry, where one is configured, with the services' own credentials."""
    if not settings.registry.url:
        return
    from virtflow.runtime.registry.client import RegistryClient

    try:
        client = RegistryClient(settings.registry)
    except SettingError as error:
        yield bad("registry", str(error.value), error.why, error.fix)
        return
    shown = plain_url(client.url)
    try:
        client.subjects()
        yield good("registry", shown, "answers")
    except RegistryUnavailableError as error:
        why, fix = str(error).removeprefix(client.name).strip(), "start the registry, or fix registry.url; without it set no URL"
        asked = urlsplit(client.url)
        if asked.scheme == "http" and server_certificate(f"{asked.hostname}:{asked.port or HTTP_PORT}", "")[0] is not None:
            why, fix = f"speaks TLS on this port: {why}", f"write registry.url as {shown.replace('http:', 'https:', 1)}"
        yield bad("registry", shown, why, fix)


def port(listen: str, key: str) -> Iterator[Finding]:
    """Checks that a service could listen on the address; a running virtflow service there is fine."""
    host, _, number = listen.rpartition(":")
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(host, int(number), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except (OSError, OverflowError) as error:
        yield _not_free(listen, key, host, error)
    else:
        yield good("port", listen, f"free ({key})")


def _not_free(listen: str, key: str, host: str, error: Exception) -> Finding:
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        if _is_ours(host, int(listen.rpartition(":")[2])):
            return good("port", listen, f"a service of virtflow listens there ({key})")
        return bad("port", listen, f"another program listens there ({key})", f"stop it, or choose another address with --listen or {key}")
    return bad("port", listen, f"{_words(error)} ({key})", f"choose an address of this host with --listen or {key}")


def _is_ours(host: str, number: int) -> bool:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104, the addresses are looked up, not bound
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE  # who it is, not whether it is trusted
    return _says_virtflow(http.client.HTTPConnection(reachable, number, timeout=OWN_ANSWER_SECONDS)) or _says_virtflow(
        http.client.HTTPSConnection(reachable, number, timeout=OWN_ANSWER_SECONDS, context=anyone)
    )


def _says_virtflow(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().headers.get("Server") == "virtflow"
    except ssl.SSLError as error:
        # It asks for a client certificate, so it can't be asked for more: our own services do so, and hardly anything else here.
        return "CERTIFICATE_REQUIRED" in (error.reason or "")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
