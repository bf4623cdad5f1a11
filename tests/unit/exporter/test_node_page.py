"""A node's page and what is wrong there, and where the pages link to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet_samples import HOSTILE, busy, fleet_records, lasting, migration
from tests.support.served_exporter import exporter_of, get, served
from tests.support.vm_samples import fleet, status, uuid
from virtflow.exporter.details.links import Links, alerts_of
from virtflow.exporter.fleet import Node
from virtflow.exporter.views.nodes import Load, findings
from virtflow.schemas.records import NodeHealth

RUNBOOKS = Path(__file__).resolve().parents[3] / "docs" / "runbooks"
DOCS = "https://docs.example/base"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    exporter = exporter_of(grafana_url="https://grafana.example/g/", docs_url=f"{DOCS}/")
    ill = NodeHealth(up=0, hung_calls=3, hung_calls_limit=3)
    exporter.take(lasting([*fleet_records(120), busy(9, 2, responsive=0), status(HOSTILE, health=ill), status("a/b"), migration(10)]))
    with served(exporter) as address:
        yield address


def test_a_nodes_page_has_everything_of_it(url: str) -> None:
    """What it reports, its VMs, its migrations and its events; the API has the same."""
    text = get(f"{url}/nodes/node-1")[2].decode()
    assert '<bdi data-value="vms" data-format="count">50</bdi>' in text
    assert text.count('<a href="/vms/') >= 50
    assert f'href="/vms/{uuid(10)}"' in text
    assert 'data-source="vms?node=node-1&amp;sort=-cpu&amp;history=cpu_cores&amp;limit=100"' in text
    assert "1 of them do not answer libvirt" in text
    assert f'<a href="{DOCS}/runbooks/VirtflowVmStuck.md" rel="noreferrer noopener">VirtflowVmStuck</a>' in text
    assert 'href="https://grafana.example/g/d/virtflow-node-pressure/virtflow-node-pressure?var-node=node-1"' in text
    found = json.loads(get(f"{url}/api/v1/nodes/node-1")[2])
    assert [one["alert"] for one in found["findings"]] == ["VirtflowVmStuck"]


def test_a_hostile_node_is_text(url: str) -> None:
    text = get(f"{url}/nodes/%3Cscript%3Ealert(1)%3C%2Fscript%3E%22'%26")[2].decode()
    assert "<script>alert" not in text
    assert "as many as may: other VMs are no longer asked" in text
    assert get(f"{url}/nodes/a%2Fb")[0] == 200
    assert get(f"{url}/nodes/nowhere")[0] == 404


def test_nodes_are_linked_to_their_pages(url: str) -> None:
    assert 'href="/nodes/a%2Fb"' in get(f"{url}/nodes")[2].decode()
    assert 'href="/nodes/node-3"' in get(f"{url}/vms?filter=vm-00110")[2].decode()


def test_a_vm_links_to_its_dashboard_and_runbooks(url: str) -> None:
    text = get(f"{url}/vms/{uuid(9)}")[2].decode()
    assert f'href="https://grafana.example/g/d/virtflow-vm/virtflow-vm?var-uuid={uuid(9)}"' in text
    assert f'href="{DOCS}/runbooks/VirtflowVmStuck.md"' in text
    assert "runbooks" not in get(f"{url}/vms/{uuid(8)}")[2].decode()


def test_without_addresses_there_is_no_link() -> None:
    vm = {"uuid": "u", "flags": ["stuck"], "state": "running", "reason": "", "migration": None}
    assert Links("", "").of_vm(vm) is None
    assert Links("", "").of_node("n") is None
    assert "VirtflowVmStuck" in str(Links("", DOCS).of_vm(vm))


@pytest.mark.parametrize(
    ("changes", "alerts"),
    [
        ({}, []),
        ({"flags": ["conflict", "migrating"]}, ["VirtflowVmSplitBrain"]),
        ({"state": "crashed"}, ["VirtflowVmCrashed"]),
        ({"state": "paused", "reason": "io_error"}, ["VirtflowVmIoError"]),
        ({"state": "paused", "reason": "user"}, []),
        ({"migration": {"result": "failed"}}, ["VirtflowMigrationFailed"]),
        ({"migration": {"result": "running", "converging": False}}, ["VirtflowMigrationNotConverging"]),
        ({"migration": {"result": "running", "converging": None}}, []),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_vm_has_its_runbook(changes: dict[str, object], alerts: list[str]) -> None:
    assert alerts_of({"flags": [], "state": "running", "reason": "", "migration": None} | changes) == alerts
    assert all((RUNBOOKS / f"{alert}.md").is_file() for alert in alerts)


def node(health: NodeHealth, *, silent: bool = False) -> Node:
    vms = fleet()
    vms.take_node(status("node-1", health=health), 0.0)
    found = vms.node("node-1")
    assert found is not None
    found.silent = silent
    return found


@pytest.mark.parametrize(
    ("health", "things"),
    [
        (NodeHealth(up=1), []),
        (NodeHealth(up=0), [("libvirt", "VirtflowNodeSilent")]),
        (NodeHealth(up=1, hung_calls=1, hung_calls_limit=3), [("hung calls", "VirtflowVmStuck")]),
        (NodeHealth(up=1, hung_calls=3, hung_calls_limit=3), [("hung calls", "VirtflowHungCallLimitReached")]),
        (NodeHealth(up=1, hung_calls=3), [("hung calls", "VirtflowVmStuck")]),
        (NodeHealth(up=1, daemons=2, daemons_silent=1), [("libvirt", "")]),
        (NodeHealth(up=1, rounds_total=100, rounds_late_total=9), []),
        (NodeHealth(up=1, rounds_total=100, rounds_late_total=10), [("rounds", "")]),
        (NodeHealth(up=1, drops_total={"snapshots": 0}), []),
        (NodeHealth(up=1, drops_total={"snapshots": 2}), [("losses", "VirtflowSnapshotsDropped")]),
        (NodeHealth(up=1, spooled_rounds=4), [("broker", "")]),
        (NodeHealth(up=1, guest_process_up=0), [("guest agents", "")]),
    ],
    ids=str,
)
def test_findings_are_what_a_node_reports(health: NodeHealth, things: list[tuple[str, str]]) -> None:
    found = findings(node(health), Load())
    assert [(one.thing, one.alert) for one in found] == things
    assert all(one.why and one.fix for one in found)
    assert all((RUNBOOKS / f"{one.alert}.md").is_file() for one in found if one.alert)


def test_a_silent_node_is_the_first_finding() -> None:
    assert [one.thing for one in findings(node(NodeHealth(up=0), silent=True), Load())] == ["node", "libvirt"]
