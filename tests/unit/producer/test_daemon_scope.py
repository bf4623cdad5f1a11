"""What contradicts asking several daemons, how one of them is reached, and its own settings."""

from __future__ import annotations

from collections.abc import Callable

import libvirt
import pytest

from virtflow.producer.daemons.connector import Connector, status_folder, uri_of
from virtflow.producer.daemons.daemon import settings_of
from virtflow.producer.daemons.scope import contradictions, refuse_contradictions
from virtflow.producer.daemons.sockets import DaemonSocket
from virtflow.runtime.settings import Guest, Libvirt, Producer, Settings
from virtflow.schemas.errors import EnvironmentProblemError

PATH = "/proc/71/root/var/run/libvirt/virtqemud-sock"
USERS = DaemonSocket((1, 2), PATH, 107)
ROOTS = DaemonSocket((1, 2), PATH, 0)


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (Settings(guest=Guest(enabled=True), libvirt=Libvirt(migration_status=True)), []),
        (Settings(libvirt=Libvirt(discover=["/a"])), []),
        (Settings(libvirt=Libvirt(discover=["/a"], migration_status=True)), ["libvirt.migration_status"]),
        (Settings(libvirt=Libvirt(discover=["/a"]), guest=Guest(enabled=True)), ["guest"]),
        (Settings(libvirt=Libvirt(discover=["/a"]), guest=Guest(balloon_period_seconds=10)), ["guest"]),
        (Settings(libvirt=Libvirt(discover=["/a", "b/*"])), ["libvirt.discover"]),
    ],
)
def test_what_only_one_daemon_has_contradicts_many(settings: Settings, keys: list[str]) -> None:
    assert [one.key for one in contradictions(settings)] == keys
    if keys:
        with pytest.raises(EnvironmentProblemError, match=keys[0]):
            refuse_contradictions(settings)
    else:
        refuse_contradictions(settings)


def test_a_users_daemon_and_roots_have_uris_and_folders_of_their_own() -> None:
    assert uri_of("/a/sock", privileged=False) == "qemu+unix:///session?socket=/a/sock"
    assert uri_of("/a b/&%/sock", privileged=True) == "qemu+unix:///system?socket=/a%20b/%26%25/sock"
    assert str(status_folder("/run/libvirt/virtqemud-sock", privileged=False)) == "/run/libvirt/qemu/run"
    assert str(status_folder("/run/libvirt/virtqemud-sock", privileged=True)) == "/run/libvirt/qemu"


def opening(*wrong: str) -> tuple[Callable[[str], str], list[str]]:
    """Opens URIs by their name; the paths ``wrong`` are refused as libvirt does it."""
    asked: list[str] = []

    def open_uri(uri: str) -> str:
        asked.append(uri)
        if any(f"///{path}" in uri for path in wrong):
            raise libvirt.libvirtError(f"unexpected QEMU URI path '/{wrong[0]}', try qemu:///other")
        return uri

    return open_uri, asked


@pytest.mark.parametrize(("socket", "kind"), [(USERS, "session"), (ROOTS, "system")])
def test_the_owner_of_a_socket_says_how_its_daemon_is_asked(socket: DaemonSocket, kind: str) -> None:
    open_uri, asked = opening()
    assert Connector(socket, open_uri).connect() == f"qemu+unix:///{kind}?socket={PATH}"
    assert len(asked) == 1


def test_a_daemon_that_is_root_in_its_own_namespace_is_asked_the_other_way_from_then_on() -> None:
    open_uri, asked = opening("session")
    connector = Connector(USERS, open_uri)
    assert connector.connect() == connector.connect() == f"qemu+unix:///system?socket={PATH}"
    assert len(asked) == 3
    assert connector.status_folder.name == "qemu"


def test_two_threads_that_find_that_out_at_once_do_not_undo_it() -> None:
    """The second one connects between the first one's refusal and its second attempt."""
    meanwhile: list[str] = []

    def open_uri(uri: str) -> str:
        if "///session" in uri:
            if not meanwhile:
                meanwhile.append("begun")
                meanwhile.append(connector.connect())
            raise libvirt.libvirtError("unexpected QEMU URI path '/session', try qemu:///other")
        return uri

    connector = Connector(USERS, open_uri)
    there = f"qemu+unix:///system?socket={PATH}"
    assert connector.connect() == there
    assert meanwhile == ["begun", there]
    assert connector.uri == there


def test_an_error_of_another_kind_is_not_tried_again() -> None:
    def refuse(_: str) -> str:
        raise libvirt.libvirtError("Failed to connect socket: Connection refused")

    connector = Connector(USERS, refuse, lambda _: False)
    with pytest.raises(libvirt.libvirtError, match="refused"):
        connector.connect()
    assert connector.refused
    connector = Connector(USERS, refuse, lambda _: True)
    with pytest.raises(libvirt.libvirtError, match="refused"):
        connector.connect()
    assert not connector.refused


def test_a_folder_that_is_gone_is_refused() -> None:
    connector = Connector(DaemonSocket((1, 2), f"/nowhere/{'x' * 120}/sock", 0), opening()[0])
    with pytest.raises(FileNotFoundError):
        connector.connect()
    assert connector.refused


@pytest.mark.parametrize(("interval", "keepalive"), [(0.5, 2), (2.0, 3), (10.0, 15), (60.0, 60)])
def test_keepalive_messages_wait_for_longer_than_an_interval(interval: float, keepalive: int) -> None:
    settings = Settings(producer=Producer(interval_seconds=interval, hung_calls_max=15), libvirt=Libvirt(discover=["/a"]))
    own = settings_of(settings, "qemu+unix:///session?socket=/a")
    assert (own.libvirt.uri, own.libvirt.keepalive_seconds) == ("qemu+unix:///session?socket=/a", keepalive)
    assert own.producer.hung_calls_max == 3
    assert settings_of(Settings(producer=Producer(hung_calls_max=1)), "").producer.hung_calls_max == 1
