"""Recordings in, text out: the whole exposition of ``virtflow snapshot --replay``, from libvirt's answers to the last line.

The expected texts are checked in beside the recordings. To write one anew after a change that is meant:
``virtflow snapshot --replay X.jsonl --format prom > X.prom``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command import in_process, one_line_error, virtflow
from tests.support.prometheus import check_metrics
from virtflow.schemas.catalogue.metrics import BY_NAME, METRICS
from virtflow.schemas.catalogue.types import Group
from virtflow.schemas.text import is_printable

DATA = Path(__file__).parent / "data"
RECORDINGS = ("lab-recording", "odd-recording", "kvm-recording")
LAB, KVM = DATA / "lab-recording.jsonl", DATA / "kvm-recording.jsonl"
WEB, DB = "01c4627c-7455-4be4-b014-9523f6d7e739", "d4e232be-ede6-48cb-9c15-42cde320a1fc"

Series = tuple[str, frozenset[tuple[str, str]]]


@cache
def exposition(path: Path, *words: str) -> str:
    """What the command prints: the same each time, so that each is run once."""
    done = in_process("snapshot", "--replay", str(path), "--format", "prom", *words)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def series(text: str) -> dict[Series, float]:
    """Every series by name and labels, as a parser that is not ours reads them; fails on one that is there twice."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def of_vm(text: str, uuid: str) -> dict[tuple[str, str], float]:
    """The values of one VM by metric and device ("" for the VM's own)."""
    return {
        (name, dict(labels).get("device") or dict(labels).get("vcpu") or ""): value
        for (name, labels), value in series(text).items()
        if ("uuid", uuid) in labels and "state" not in dict(labels)
    }


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", RECORDINGS)
def test_exposition_is_the_expected_text(name: str) -> None:
    """Line for line, order included: what a scrape of these VMs is."""
    assert exposition(DATA / f"{name}.jsonl", "--kvm") == (DATA / f"{name}.prom").read_text()


def test_kvms_own_statistics_are_shown_on_request() -> None:
    """Without the switch their families are not there, and everything else is as with it."""
    names = {metric.name for metric in METRICS if metric.group is Group.KVM}
    plain, whole = (series(exposition(KVM, *words)) for words in ((), ("--kvm",)))
    assert {name for name, _ in whole.keys() - plain.keys()} == names
    assert plain.items() <= whole.items()
    assert {name for name, _ in series(exposition(KVM, "--kvm", "--include", "kvm"))} == names
    data = lines(KVM)[0]["data"]
    assert of_labels(whole, "vm_vcpu_kvm_exits_total", vcpu="3") == data["vcpu.3.exits.sum"]
    assert of_labels(whole, "vm_vcpu_kvm_haltpoll_seconds_total", vcpu="3", result="fail") == data["vcpu.3.halt_poll_fail_ns.sum"] / 1e9
    assert of_labels(plain, "vm_cpu_haltpoll_seconds_total", result="success") == data["cpu.haltpoll.success.time"] / 1e9


def of_labels(found: dict[Series, float], name: str, **labels: str) -> float:
    """The value of the large VM's series with these labels."""
    (value,) = [value for (n, all_), value in found.items() if n == name and {("name", "kvm-large"), *labels.items()} <= all_]
    return value


@pytest.mark.parametrize("name", RECORDINGS)
def test_exposition_is_clean(name: str) -> None:
    """Promtool has nothing to say, every series is there once, and every family is the catalogue's with its type and help."""
    text = exposition(DATA / f"{name}.jsonl")
    check_metrics(text)
    assert series(text)
    for family in text_string_to_metric_families(text):
        metric = BY_NAME.get(family.name) or BY_NAME[f"{family.name}_total"]
        assert metric.of_vm
        assert (family.type, family.documentation) == (metric.type.value, metric.help)


def test_values_are_those_of_the_recording() -> None:
    """Worked out here from libvirt's keys and units without any of our code: the newest line of each VM, whatever node."""
    newest = {line["uuid"]: line for line in sorted(lines(LAB), key=lambda line: line["t"]) if line["kind"] == "stats"}
    assert set(newest) == {WEB, DB}
    text = exposition(LAB)
    db, web = newest[DB]["data"], newest[WEB]["data"]
    found = of_vm(text, DB)
    assert found["vm_cpu_seconds_total", ""] == pytest.approx(db["cpu.time"] / 1e9)
    assert found["vm_memory_rss_bytes", ""] == db["balloon.rss"] * 1024
    assert found["vm_memory_balloon_current_bytes", ""] == db["balloon.current"] * 1024
    assert found["vm_guest_memory_usable_bytes", ""] == db["balloon.usable"] * 1024
    assert found["vm_guest_memory_major_faults_total", ""] == db["balloon.major_fault"]
    assert found["vm_guest_memory_updated_timestamp_seconds", ""] == db["balloon.last-update"]
    assert found["vm_block_write_bytes_total", db["block.0.name"]] == db["block.0.wr.bytes"]
    assert found["vm_block_write_seconds_total", db["block.0.name"]] == pytest.approx(db["block.0.wr.times"] / 1e9)
    assert found["vm_vcpu_delay_seconds_total", "0"] == pytest.approx(db["vcpu.0.delay"] / 1e9)
    assert found["vm_state", ""] == db["state.state"]
    found = of_vm(text, WEB)
    assert found["vm_network_receive_bytes_total", web["net.0.name"]] == web["net.0.rx.bytes"]
    assert found["vm_network_transmit_packets_total", web["net.0.name"]] == web["net.0.tx.pkts"]
    assert found["vm_sample_age_seconds", ""] == pytest.approx(newest[DB]["t"] - newest[WEB]["t"], abs=0.001)


def test_absent_is_absent() -> None:
    """A family has exactly the VMs whose newest line has its field: none is made up, none is lost."""
    recording = DATA / "odd-recording.jsonl"
    newest = {line["uuid"]: line["data"] for line in lines(recording) if line["kind"] == "stats"}
    text = exposition(recording)
    shown: dict[str, set[str]] = {}
    for name, labels in series(text):
        shown.setdefault(name, set()).add(dict(labels)["uuid"])
    for metric, field in (
        ("vm_memory_rss_bytes", "balloon.rss"),
        ("vm_guest_memory_free_bytes", "balloon.unused"),
        ("vm_vcpus_current", "vcpu.current"),
        ("vm_block_devices", "block.count"),
    ):
        assert shown.get(metric, set()) == {uuid for uuid, data in newest.items() if field in data}, metric


def test_devices_are_known_by_name() -> None:
    """Each device libvirt names has its series once, whatever its index; one without a name has none."""
    recording = DATA / "odd-recording.jsonl"
    newest = {line["uuid"]: line["data"] for line in lines(recording) if line["kind"] == "stats"}
    text = exposition(recording)
    for uuid, data in newest.items():
        for prefix, metric in (("block", "vm_block_read_bytes_total"), ("net", "vm_network_receive_bytes_total")):
            field = "rd.bytes" if prefix == "block" else "rx.bytes"
            indices = {key.split(".")[1] for key in data if key.startswith(f"{prefix}.") and key.endswith(field)}
            names = Counter(data[f"{prefix}.{index}.name"] for index in indices if f"{prefix}.{index}.name" in data)
            assert {device for name, device in of_vm(text, uuid) if name == metric} == set(names), (uuid, prefix)


@pytest.mark.parametrize(("path", "node"), [(LAB, "node1"), (KVM, "kvm-1")])
def test_json_says_the_same(path: Path, node: str) -> None:
    """Every value of the exposition that libvirt reported stands in the JSON under the metric's name and labels, and no other."""
    found = series(exposition(path, "--kvm"))
    told = json.loads(in_process("snapshot", "--replay", str(path), "--format", "json", "--kvm").stdout)
    assert told["node"] == node
    values: dict[tuple[str, ...], float] = {}
    for vm in told["vms"]:
        for name in vm.keys() & BY_NAME.keys():
            values |= {(name, vm["uuid"], *words): value for words, value in leaves(vm[name])}
    reported = {metric.name: metric.labels for metric in METRICS if type(metric.source).__name__ in {"Libvirt", "Split"}}
    expected: dict[tuple[str, ...], float] = {}
    for (name, labels), value in found.items():
        if name in reported:
            by_label = dict(labels)
            expected[name, by_label["uuid"], *(by_label[label] for label in reported[name])] = value
    assert values == pytest.approx(expected)


def leaves(value: Any) -> Iterator[tuple[tuple[str, ...], float]]:  # noqa: ANN401, JSON
    """The numbers in nested objects, each with the words that lead to it."""
    if isinstance(value, dict):
        for word, inner in value.items():
            yield from (((word, *words), leaf) for words, leaf in leaves(inner))
    else:
        yield (), value


def test_table_has_a_line_per_vm() -> None:
    done = in_process("snapshot", "--replay", str(LAB))
    head, first, second, last = done.stdout.splitlines()
    assert head.split()[:3] == ["NAME", "STATE", "VCPUS"]
    assert first.split()[:2] == ["db-1", "running"]
    assert second.split()[:2] == ["web-1", "running"]
    assert last.startswith("2 VMs, node node1, 2026-")


def test_table_of_hostile_names_harms_no_terminal() -> None:
    done = in_process("snapshot", "--replay", str(DATA / "odd-recording.jsonl"))
    assert done.returncode == 0
    assert all(is_printable(line) for line in done.stdout.splitlines())
    assert "running, does not answer" in done.stdout


def test_metrics_and_labels_can_be_chosen() -> None:
    text = exposition(LAB, "--include", "core", "--exclude", "vm_cpu_seconds_total", "--vm-labels", "name,node")
    names = {name for name, _ in series(text)}
    assert names <= {metric.name for metric in METRICS if metric.group.value == "core"} - {"vm_cpu_seconds_total"}
    assert names
    assert all(dict(labels)["node"] in {"node1", "node2"} for _, labels in series(text))
    line = one_line_error(in_process("snapshot", "--replay", str(LAB), "--include", "weather"), 2)
    assert "exporter.include" in line
    assert "'weather'" in line


def stats(time: float, node: str, state: int = 1, reason: int = 1, cpu: int = 0) -> str:
    data = {"state.state": state, "state.reason": reason, "cpu.time": cpu, "balloon.current": 1024, "vcpu.current": 1}
    return json.dumps({"t": time, "node": node, "kind": "stats", "vm": "web", "uuid": WEB, "data": data})


T = 1_795_476_000.0
OWNERSHIP = {
    "the newest line": ([(T, "a", 1), (T + 1, "a", 1), (T + 2, "b", 1)], "b"),
    "the source while the VM arrives": ([(T, "a", 1), (T + 1, "a", 1), (T + 1.5, "b", 3), (T + 2.5, "b", 3)], "a"),
    "the destination once it runs": ([(T, "a", 1), (T + 1, "a", 1), (T + 1.5, "b", 3), (T + 2.5, "b", 1)], "b"),
    "the one that stays when the other is long over": ([(T, "a", 1), (T + 1, "a", 1), (T + 9, "b", 3), (T + 10, "b", 3)], "b"),
    "the newest time, not the last line": ([(T + 5, "a", 1), (T, "a", 1)], "a"),
}


@pytest.mark.parametrize("name", OWNERSHIP)
def test_one_node_speaks_for_a_vm(name: str, tmp_path: Path) -> None:
    """Two nodes that recorded one VM give one sample, by the rule that holds everywhere."""
    told, node = OWNERSHIP[name]
    file = tmp_path / "two.jsonl"
    file.write_text("\n".join(stats(time, where, state, 11 if state == 3 else 1) for time, where, state in told) + "\n")
    done = in_process("snapshot", "--replay", str(file), "--format", "json")
    (vm,) = json.loads(done.stdout)["vms"]
    assert vm["node"] == node
    assert vm["collected"] == max(time for time, where, _ in told if where == node)


BROKEN = [
    "no JSON",
    '{"t": 1, "kind": "stats"',
    '{"t": "soon", "node": "a", "kind": "stats", "vm": "x", "uuid": "u", "data": {}}',
    stats(T, "a").replace(WEB, "no-uuid"),
    stats(T, "a").replace('"data": {', '"data": [{').replace("}}", "}]}"),
    stats(float("nan"), "a"),
    "",
]


def test_broken_lines_are_passed_by_and_counted(tmp_path: Path) -> None:
    """The good sample between them is shown as if they were not there; standard error says how many. Other kinds are no fault."""
    file = tmp_path / "broken.jsonl"
    file.write_text("\n".join([*BROKEN[:4], stats(T, "a", cpu=5_000_000_000), *BROKEN[4:], "[1, 2]", '{"kind": "event"}']) + "\n")
    done = in_process("snapshot", "--replay", str(file), "--format", "json")
    assert done.returncode == 0
    (vm,) = json.loads(done.stdout)["vms"]
    assert vm["vm_cpu_seconds_total"] == 5.0
    assert done.stderr == f"virtflow: recording {file}: 7 broken lines skipped\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "holds no sample (0 lines skipped)"),
        (b"hello\n", "holds no sample (1 lines skipped)"),
        (b'{"t": 1, "node": "a", "kind": "event", "data": {}}\n', "holds no sample (1 lines skipped)"),
        (bytes(range(256)) * 100, "holds no sample"),
    ],
    ids=["missing", "empty", "no JSON", "no statistics", "binary"],
)
def test_a_file_that_is_no_recording(content: bytes | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "recording.jsonl"
    if content is not None:
        file.write_bytes(content)
    line = one_line_error(in_process("snapshot", "--replay", str(file)), 1)
    assert f"recording {file}: {why}" in line
    assert "--record" in line


def test_neither_libvirt_nor_a_recording() -> None:
    line = one_line_error(virtflow("snapshot", "--connect", "qemu+unix:///system?socket=/nowhere/sock"), 1)
    assert "libvirt qemu+unix:///system?socket=/nowhere/sock: " in line
    assert "No such file or directory" in line
    assert "--connect" in line
    assert "--replay FILE" in line


def test_recording_a_recording_is_wrong_use(tmp_path: Path) -> None:
    done = in_process("snapshot", "--replay", str(LAB), "--record", str(tmp_path / "x"))
    assert done.returncode == 2
    assert "give one of them" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_driver_without_keepalive_is_sampled() -> None:
    """Libvirt's test driver has no messages that could keep anything alive: it is used without them."""
    done = virtflow("snapshot", "--connect", "test:///default", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert [vm["name"] for vm in json.loads(done.stdout)["vms"]] == ["test"]
