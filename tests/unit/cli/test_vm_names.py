"""Completing a VM: by name and UUID from an exporter's API, never a word that a shell would run, and nothing where none answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

import click
import pytest

from tests.support.broker import free_ports
from tests.support.command import in_process
from tests.support.fleet_samples import busy, lasting
from tests.support.processors import eventually
from tests.support.served_exporter import exporter_of, get, served
from tests.support.vm_samples import status, uuid
from virtflow.cli.main import main
from virtflow.cli.top.vm_names import WAIT_SECONDS, VmName

NAMES: Final = ("web-1", "web-2", "db-1", "web$(reboot)", "web-3;halt", "-web", "web 4", "wéb", "`web`", "web-5\nplain,web-6", "web:7", "*")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    exporter = exporter_of()
    with served(exporter) as address:
        exporter.take(lasting([status("node-1"), *(busy(number, 0, name=name) for number, name in enumerate(NAMES))]))
        eventually("all VMs", lambda: f'"total":{len(NAMES)}'.encode() in get(f"{address}/api/v1/vms")[2])
        yield address


def completed(line: str, url: str = "") -> list[str]:
    """What bash is offered for the last word of a line, which may be empty."""
    words = line.split(" ")
    env = {"_VIRTFLOW_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = in_process(env=env | ({"VIRTFLOW_URL": url} if url else {}))
    assert (done.returncode, done.stderr) == (0, "")
    return [offer for offer in done.stdout.splitlines() if offer]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("virtflow tap events --vm ", ["db-1", "web-1", "web-2"]),
        ("virtflow tap events --vm we", ["web-1", "web-2"]),
        ("virtflow history where --vm web-2", ["web-2"]),
        ("virtflow history range vm_state --vm web-1 --vm d", ["db-1"]),
        ("virtflow history forget --vm WEB", []),
        (f"virtflow history range vm_state --vm {uuid(2)[:-1]}", [uuid(number) for number in (8, 5, 2, 10, 4, 9, 11, 1, 0, 6, 7, 3)]),
        (f"virtflow tap events --vm {uuid(1)}", [uuid(1)]),
        ("virtflow tap events --vm nobody", []),
    ],
)
def test_names_and_uuids_are_offered(url: str, line: str, offered: list[str]) -> None:
    """Names that no shell reads anything into; the other VMs by their UUIDs alone."""
    assert sorted(completed(line, url)) == sorted(f"plain,{word}" for word in offered)


def test_top_completes_from_the_exporter_that_it_asks(url: str) -> None:
    assert completed(f"virtflow top --url {url} --filter web-1") == ["plain,web-1"]


def test_every_option_for_a_vm_completes() -> None:
    """Found by what stands for its value."""
    from tests.support.command_line import ALL

    options = [parameter for command in ALL.values() for parameter in command.params if parameter.metavar == "NAME|UUID"]
    assert len(options) >= 4
    assert {type(option.type).__name__ for option in options} == {"VmName"}
    assert isinstance(main, click.Group)


@pytest.mark.parametrize("name", ["web-1", "w\u00e9b", "a\u00a0b", "1\u202f000", "\u6771\u4eac\u3000x", "\U0001f469\u200d\U0001f4bb"])
def test_a_name_is_what_was_typed_whatever_the_locale(name: str) -> None:
    """Also where the locale has no place for it: each of its bytes is then a surrogate."""
    for typed in (name, name.encode().decode("ascii", "surrogateescape")):
        assert VmName().convert(typed, None, None) == name


@pytest.mark.parametrize(
    "words",
    [
        ("history", "where", "now", "--vm"),
        ("history", "query", "SELECT 1", "--project"),
        ("history", "query"),
        ("history", "forget", "--project"),
        ("top", "--filter"),
        ("top", "--node"),
        ("top", "--project"),
        ("tap", "events", "--node"),
        ("topics", "acls", "--principal"),
        ("forget-node",),
    ],
    ids=" ".join,
)
def test_a_word_that_is_no_utf_8_is_refused(words: tuple[str, ...]) -> None:
    done = in_process(*words, "web\udcff")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'web?' is no UTF-8" in done.stderr


def test_an_exporter_that_is_away_offers_nothing() -> None:
    (port,) = free_ports(1)
    assert completed("virtflow tap events --vm web", f"127.0.0.1:{port}") == []
    assert completed("virtflow tap events --vm web", "ftp://nowhere") == []


def test_an_exporter_that_is_silent_is_not_waited_for() -> None:
    """It takes the connection, and never answers: the command ends before it does."""
    assert WAIT_SECONDS <= 0.4
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert completed("virtflow tap events --vm web", f"127.0.0.1:{silent.getsockname()[1]}") == []


def test_what_is_no_exporter_offers_nothing(url: str) -> None:
    """A page that is there, and has another answer."""
    exporter = exporter_of(fleet_page=False)
    with served(exporter) as other:
        assert completed("virtflow tap events --vm web", other) == []
    assert completed("virtflow tap events --vm web-1", url) == ["plain,web-1"]
