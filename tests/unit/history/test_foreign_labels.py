"""Labels that no series of a query's metrics has: the query is refused by their names, in place of an empty answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtflow.history.remote_read.protocol.wire import Asked, Match, Matcher
from virtflow.history.remote_read.reading.reader import Reader, UnknownLabelError
from virtflow.history.storage.delta import Store
from virtflow.runtime.settings import Exporter, History, Settings


def refused(path: Path, matchers: list[tuple[str, Match, str]], labels: list[str], given: dict[str, str] | None = None) -> tuple[str, ...]:
    """The labels by which a query is refused; ``labels`` are the exporter's labels of VMs, ``given`` those that the history gives."""
    settings = Settings(history=History(path=str(path), serve_labels=given or {}), exporter=Exporter(vm_labels=labels))
    reader = Reader(Store(settings.history), settings)
    try:
        found = reader.read(Asked(0, 1_000, tuple(Matcher(how, name, value) for name, how, value in matchers)))
    except UnknownLabelError as error:
        return error.labels
    assert not found
    return ()


def metric(name: str) -> tuple[str, Match, str]:
    return ("__name__", Match.EQUAL, name)


@pytest.mark.parametrize(
    ("name", "label", "has"),
    [
        ("vm_info", "project", True),
        ("vm_cpu_seconds_total", "project", False),
        ("vm_cpu_seconds_total", "namespace", False),
        ("vm_state_info", "node", False),
        ("vm_state_info", "state", True),
        ("vm_state", "state", False),
        ("vm_block_read_bytes_total", "device", True),
        ("vm_block_read_bytes_total", "mountpoint", False),
        ("vm_guest_filesystem_free_bytes", "mountpoint", True),
        ("vm_info", "device", False),
        ("vm_cpu_seconds_total", "name", True),
        ("vm_cpu_seconds_total", "region", False),
        ("vm_cpu_haltpoll_seconds_total", "result", True),
        ("vm_cpu_seconds_total", "result", False),
    ],
)
def test_a_label_is_judged_by_the_metric(tmp_path: Path, name: str, label: str, *, has: bool) -> None:
    assert refused(tmp_path, [metric(name), (label, Match.EQUAL, "x")], ["name"]) == (() if has else (label,))


def test_labels_that_every_vm_or_the_history_has_are_known(tmp_path: Path) -> None:
    wanted = [metric("vm_state"), ("project", Match.EQUAL, "x"), ("namespace", Match.REGEX, "y.*")]
    assert refused(tmp_path, wanted, ["name"]) == ("namespace", "project")
    assert refused(tmp_path, wanted, ["name", "project"]) == ("namespace",)
    assert refused(tmp_path, wanted, ["name"], {"project": "x", "namespace": "yes"}) == ()


def test_a_label_that_may_be_absent_is_no_reason(tmp_path: Path) -> None:
    for how, value in ((Match.EQUAL, ""), (Match.NOT_EQUAL, "x"), (Match.REGEX, ".*"), (Match.NOT_REGEX, "x")):
        assert refused(tmp_path, [metric("vm_state"), ("project", how, value)], ["name"]) == ()


def test_of_several_metrics_one_that_has_the_label_is_enough(tmp_path: Path) -> None:
    several = ("__name__", Match.REGEX, "vm_info|vm_state")
    assert refused(tmp_path, [several, ("project", Match.EQUAL, "x")], ["name"]) == ()
    assert refused(tmp_path, [several, ("device", Match.EQUAL, "x")], ["name"]) == ("device",)
