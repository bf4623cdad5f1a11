"""What the doctor says of what was examined, and what it reads of the host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from virtflow.cli.checks import host
from virtflow.cli.checks.doctor import findings
from virtflow.producer.hypervisor.diagnostics import Examined, ExaminedVm, lacks_statistics_period
from virtflow.runtime.settings import Libvirt, Producer, Settings

FINE = ExaminedVm("u-1", "web-1", running=True, process="S", storage=("/srv/a.img",))
HEALTHY = Examined("test:///x", "", 0.1, "9.0.0", "7.2.0", 17, 17, [FINE])


def wrong(examined: Examined) -> dict[str, str]:
    return {
        finding.thing: f"{finding.value}: {finding.detail}; {finding.fix}" for finding in findings(examined, Settings()) if not finding.ok
    }


def with_vm(**changes: object) -> Examined:
    return replace(HEALTHY, vms=[replace(FINE, **changes)])  # type: ignore[arg-type]


def test_a_healthy_host() -> None:
    assert wrong(HEALTHY) == {}


@pytest.mark.parametrize(
    ("problem", "fix"),
    [
        ("Failed to connect socket to '/x': Permission denied", "group libvirt"),
        ("no answer within 10 s", "find what hangs"),
        ("connected, but calls are not answered within 10 s: all of libvirtd's workers may be taken", "find what hangs"),
        ("Failed to connect socket to '/x': No such file or directory", "systemctl start libvirtd"),
    ],
)
def test_a_libvirt_that_does_not_answer_is_all_there_is_to_say(problem: str, fix: str) -> None:
    assert list(wrong(replace(HEALTHY, problem=problem))) == ["libvirt"]
    assert fix in wrong(replace(HEALTHY, problem=problem))["libvirt"]


@pytest.mark.parametrize(
    ("examined", "thing", "words"),
    [
        (replace(HEALTHY, seconds=3.0), "libvirt", "libvirtd is busy"),
        (replace(HEALTHY, seconds=8.1), "libvirt", "choose a longer producer.interval_seconds"),
        (replace(HEALTHY, event_kinds=0), "events", "no kind of event"),
        (
            with_vm(occupied_seconds=90.0),
            "hung calls",
            "1: in VMs that do not answer, of any client; 19 of libvirtd's 20 workers",
        ),
        (with_vm(occupied_seconds=90.0), "VM", "web-1: a call has been held in it for 90 s; look at its storage: /srv/a.img"),
        (with_vm(process="D"), "VM", "waits for storage"),
        (with_vm(process="T", storage=()), "VM", "none in its XML"),
        (with_vm(process=""), "process table", "1 of 1 QEMU processes are not seen"),
        (with_vm(lacks_statistics_period=True), "balloon", "web-1"),
    ],
)
def test_each_trouble_is_named_with_its_fix(examined: Examined, thing: str, words: str) -> None:
    assert words in wrong(examined)[thing]


def test_many_stuck_vms_are_counted() -> None:
    vms = [replace(FINE, name=f"vm-{number}", process="D") for number in range(30)]
    assert wrong(replace(HEALTHY, vms=vms))["VMs"].startswith("10: more do not answer")


@pytest.mark.parametrize("occupied", [0.0, 0.5])
def test_a_moment_s_job_is_nothing(occupied: float) -> None:
    assert wrong(with_vm(occupied_seconds=occupied)) == {}


@pytest.mark.parametrize(
    ("balloon", "lacks"),
    [
        ("<memballoon model='virtio'><stats period='5'/></memballoon>", False),
        ("<memballoon model='virtio'><stats period='0'/></memballoon>", True),
        ("<memballoon model='virtio'/>", True),
        ("<memballoon model='none'/>", False),
        ("", False),
    ],
)
def test_the_balloon_s_statistics_period(balloon: str, lacks: bool) -> None:  # noqa: FBT001
    assert lacks_statistics_period(f"<domain><devices>{balloon}</devices></domain>") is lacks


@pytest.mark.parametrize(
    ("text", "workers", "requests"),
    [("", 20, 5), ("#max_workers = 7\n", 20, 5), ("max_workers = 8\n max_client_requests=1\n", 8, 1), ("max_workers = many", 20, 5)],
)
def test_the_daemon_s_limits(tmp_path: Path, text: str, workers: int, requests: int) -> None:
    (tmp_path / "libvirtd.conf").write_text(text)
    found = host.daemon_limits("qemu:///system", (tmp_path / "none", tmp_path / "libvirtd.conf"))
    assert (found.max_workers, found.max_client_requests) == (workers, requests)
    assert host.daemon_limits("qemu+tcp://other/system", (tmp_path / "libvirtd.conf",)) == host.DaemonLimits()


@pytest.mark.parametrize(("cap", "ok"), [(3, True), (5, True), (6, False)])
def test_the_cap_against_the_daemon_s_workers(cap: int, ok: bool) -> None:  # noqa: FBT001
    settings = Settings(producer=Producer(hung_calls_max=cap), libvirt=Libvirt(uri="qemu+tcp://other/system"))
    assert {finding.thing: finding.ok for finding in host.findings(settings)}["max_workers"] is ok
