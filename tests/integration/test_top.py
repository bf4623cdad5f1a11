"""`virtflow top` as a person uses it: on a terminal of 80 columns and 24 lines, against a running exporter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.support.broker import free_ports
from tests.support.command import one_line_error, virtflow
from tests.support.fleet_samples import busy, fleet_records, lasting, migration
from tests.support.processors import eventually
from tests.support.served_exporter import exporter_of, get, served
from tests.support.terminal import Terminal
from tests.support.vm_samples import status, uuid
from virtflow.schemas.records import NodeHealth

VMS = 120
SIZES = ((80, 24), (200, 50))
"""Columns and lines of the smallest terminal that everything fits, and of a wide one."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """120 VMs on three nodes that stay for an hour; one is stuck, one migrates, a node is down."""
    exporter = exporter_of()
    with served(exporter) as address:
        for round_ in range(2):
            records = [busy(number, round_) for number in range(VMS)]
            exporter.take(lasting([*fleet_records(VMS, rounds=0), *(status(f"node-{n}", round_) for n in (1, 2, 3)), *records]))
            get(f"{address}/api/v1/fleet")
            eventually("all VMs", lambda: len(json.loads(get(f"{address}/api/v1/vms?limit=200")[2])["items"]) == VMS)
        exporter.take(lasting([busy(3, 2, responsive=0), migration(4), status("node-9", health=NodeHealth(up=0, hung_calls=1))]))
        # Answers may be half a second old.
        eventually("the stuck VM", lambda: json.loads(get(f"{address}/api/v1/fleet")[2])["stuck"] == 1)
        yield address


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_from_the_fleet_to_a_device_and_back(url: str, columns: int, lines: int) -> None:
    with Terminal("top", "--url", url, columns=columns, lines=lines) as terminal:
        screen = terminal.wait_for(lambda text: "node-3" in text, "nodes")
        assert "120 VMs  1 stuck  1 migrating" in screen
        assert re.search(r"^ D node-9 +no libvirt", screen, re.MULTILINE)
        assert re.search(r"^>. node-1 +up", screen, re.MULTILINE)
        terminal.press("\x1b[B\r")
        terminal.wait_for(lambda text: "VMs of node-2" in text and "vm-00079" in text, "its VMs")
        terminal.press("jj\r")
        terminal.wait_for(lambda text: "Devices" in text and "disk vda" in text, "a VM")
        terminal.press("jj\r")
        terminal.wait_for(lambda text: "disk vda of VM" in text and "capacity" in text, "a device")
        terminal.press("\x1b")
        terminal.wait_for(lambda text: "Devices" in text, "back to the VM")
        terminal.press("q")
        assert terminal.end() == 0


def test_search_sort_and_flags(url: str) -> None:
    with Terminal("top", "--url", url, "--sort", "name") as terminal:
        screen = terminal.wait_for(lambda text: "vm-00000" in text, "VMs by name")
        assert re.search(r"^ S vm-00003", screen, re.MULTILINE)
        assert re.search(r"^ M vm-00004", screen, re.MULTILINE)
        terminal.press("/vm-0011")
        terminal.wait_for(lambda text: "search: vm-0011_" in text and "10 of 120" in text, "typing searches")
        terminal.press("\r")
        terminal.wait_for(lambda text: "search 'vm-0011'" in text, "kept")
        terminal.press("r")
        terminal.wait_for(lambda text: re.search(r"^>. vm-00119", text, re.MULTILINE) is not None, "the other way round")
        terminal.press("nvf")
        terminal.wait_for(lambda text: "1 of 120" in text and "vm-00003" in text, "only stuck ones")
        terminal.press("m")
        terminal.wait_for(lambda text: "Migrations" in text and "node-1" in text, "migrations")
        terminal.press("?")
        terminal.wait_for(lambda text: "Marks: S stuck" in text, "help")
        terminal.press("\x03")
        assert terminal.end() == 0


def test_it_fits_a_window_that_changes(url: str) -> None:
    with Terminal("top", "--url", url, "--sort", "-cpu") as terminal:
        terminal.wait_for(lambda text: "vm-00119" in text, "VMs")
        terminal.resize(160, 40)
        terminal.wait_for(lambda text: "STEAL" in text and "PROJECT" in text, "more columns")
        terminal.resize(40, 10)
        terminal.wait_for(lambda text: "CORES" in text and "STEAL" not in text, "fewer columns")


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_a_migration_is_followed_to_its_end(columns: int, lines: int) -> None:
    """From the list of migrations, and from there to the VM, whose page says where it is now."""
    exporter = exporter_of()
    records = lasting([status("node-1"), status("node-2"), busy(4, 0), migration(4, progress_ratio=0.25)])
    with served(exporter) as url:
        exporter.take(records)
        with Terminal("top", "--url", url, "--refresh", "0.5", columns=columns, lines=lines) as top:
            top.wait_for(lambda text: "node-1" in text)
            top.press("m")
            top.wait_for(lambda text: re.search(r"vm-00004 +running +25%", text) is not None, "it runs")
            exporter.take([migration(4, progress_ratio=0.75, revision=2)])
            top.wait_for(lambda text: re.search(r"vm-00004 +running +75%", text) is not None, "it goes on")
            exporter.take(lasting([migration(4, "completed", progress_ratio=1.0, revision=3), busy(4, 1, node="node-2", boot_id="2")]))
            top.wait_for(lambda text: re.search(r"vm-00004 +completed +100%", text) is not None, "it has ended")
            top.press("\r")
            text = top.wait_for(lambda text: "vm-00004" in text and "node-2" in text and "DEVICE" in text, "its VM, at its new place")
            assert all(len(line) <= columns for line in text.splitlines())
            top.press("q")
            assert top.end() == 0


def test_without_colours_nothing_is_coloured(url: str) -> None:
    """And with them, something is."""
    sent = []
    for env in ({"NO_COLOR": "1"}, {"NO_COLOR": ""}):
        with Terminal("top", "--url", url, env=env) as terminal:
            terminal.wait_for(lambda text: "node-3" in text, "nodes")
            sent.append(terminal.sent)
    coloured = re.compile(rb"\x1b\[[\d;]*(3[0-7]|9[0-7])[\d;]*m")
    assert not coloured.search(sent[0])
    assert coloured.search(sent[1])


def test_the_terminal_is_given_back(url: str) -> None:
    """The screen from before, and a cursor."""
    with Terminal("top", "--url", url) as terminal:
        terminal.wait_for(lambda text: "node-3" in text, "nodes")
        terminal.press("q")
        assert terminal.end() == 0
        assert b"\x1b[?1049l" in terminal.sent
        assert terminal.sent.rindex(b"\x1b[?25h") > terminal.sent.rindex(b"\x1b[?25l")


def test_an_exporter_that_is_away_is_waited_for() -> None:
    (port,) = free_ports(1)
    with Terminal("top", "--url", f"127.0.0.1:{port}", "--refresh", "0.5") as terminal:
        terminal.wait_for(lambda text: "refused" in text, "why there is nothing")
        terminal.press("q")
        assert terminal.end() == 0


def test_once_prints_a_table(url: str) -> None:
    done = virtflow("top", "--once", "--url", url, "--sort", "-cpu", "--limit", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("120 VMs")
    assert [line.split()[0] for line in lines[4:]] == ["vm-00119", "vm-00079", "vm-00039"]
    with Terminal("top", "--once", "--url", url, "--flag", "stuck") as terminal:
        assert terminal.end() == 0
        assert re.search(r"^ S vm-00003", terminal.text(), re.MULTILINE)


def test_once_as_json(url: str) -> None:
    done = virtflow("top", "--once", "--json", "--url", url, "--node", "node-3", "--project", "project-2")
    found = json.loads(done.stdout)
    assert found["fleet"]["vms"] == VMS
    assert {vm["node"] for vm in found["vms"]["items"]} == {"node-3"}
    assert found["vms"]["items"][0]["uuid"] == uuid(114)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("--url", "ftp://x"), 1, "is no http or https URL"),
        (("--url", "http://127.0.0.1:1"), 1, "name an exporter"),
        (("--sort", "bogus"), 1, "sort='bogus' is not allowed; allowed: name, node"),
    ],
)
def test_what_is_wrong_is_one_line(url: str, words: tuple[str, ...], code: int, why: str) -> None:
    given = words if "--url" in words else (*words, "--url", url)
    assert why in one_line_error(virtflow("top", "--once", *given), code)


def test_what_is_no_exporter_is_said() -> None:
    exporter = exporter_of(fleet_page=False)
    with served(exporter) as other:
        assert "it has no fleet page" in one_line_error(virtflow("top", "--once", "--url", other), 1)
    assert virtflow("top", "--json").returncode == 2
