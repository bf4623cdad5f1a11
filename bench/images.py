"""The images' sizes, and the producer running from its own: the container files' stages as folders, see ``image_root``."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.node import cpu_seconds, memory_mib
from bench.node_collectors import Place, Topic, snapshot_values
from bench.part import Asked, origin, quiet
from scripts.image_root import FINAL, ROOT, Stage, build, size_of
from tests.support.broker import Broker
from tests.support.lab import Lab, await_true
from tools.documents import table
from virtflow.runtime.configuration import load
from virtflow.runtime.kafka.topic_admin import TopicAdmin

IMAGES: Final = ("producer", "centre")
VMS: Final = 20
READY_SECONDS: Final = 60.0
WATCHED_SECONDS: Final = 20.0
LAYER_GOAL_BYTES: Final = 40e6
STATE: Final = "var/lib/virtflow"
KNOWN_USER: Final = "65534"
"""Nobody: libvirtd refuses clients of a user that its host does not know, as it does not know the image's own here."""


def measure(folder: Path) -> dict[str, Any]:
    """Both images, and the producer's while it runs."""
    images, producer = {}, None
    for name in IMAGES:
        print(f"building the image {name}", file=sys.stderr)
        stages = build(ROOT / "deploy" / "container" / f"{name}.Dockerfile", folder / name)
        stage = stages[FINAL]
        total, files = size_of(stage.root)
        images[name] = {
            "bytes": total,
            "files": files,
            "base_bytes": stage.began[0],
            "debian_bytes": stages["python"].began[0],
            "layer_bytes": total - stage.began[0],
            "layer_files": files - stage.began[1],
        }
        producer = producer or stage
    assert producer is not None
    return {"images": images, "running": _running(producer, folder)}


def command(stage: Stage, settings: Mapping[str, str]) -> list[str]:
    """What runs a stage's command as an engine would: its root read-only, no user of rights, its environment, and no way to more privileges."""
    root, environment = stage.root, {**stage.environment, **settings}
    words = [*stage.entrypoint, *stage.command]
    inner = ["env", "-i", *(f"{key}={value}" for key, value in environment.items()), *words]
    steps = [
        f"mount --bind {root} {root}",
        f"mount -t proc proc {root}/proc",
        f"mount -t tmpfs tmpfs {root}/tmp",  # noqa: S108, the root's own
        f"mount -t tmpfs -o mode=700,uid={KNOWN_USER} tmpfs {root}/{STATE}",
        f"mount -t tmpfs tmpfs {root}/run",
        f"mkdir {root}/run/libvirt",
        f"mount --bind /run/libvirt {root}/run/libvirt",
        f"mount --bind /dev {root}/dev",
        f"mount -o remount,bind,ro {root}",
        f"exec chroot --userspec={KNOWN_USER}:{KNOWN_USER} {root} setpriv --no-new-privs {shlex.join(inner)}",
    ]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", " && ".join(steps)]


def _running(stage: Stage, folder: Path) -> dict[str, Any]:
    with Lab(nodes=1) as lab, Broker(folder / "broker", host=lab.network.address(254)) as broker:
        admin = TopicAdmin(load(None, {"VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": broker.address}))
        admin.create(admin.states(), dry_run=False)
        node = lab.nodes[0]
        node.load_paused(VMS)
        topic = Topic(Place(node, broker.address, folder, 1.0), "vm.snapshots", snapshot_values())
        settings = {"VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": broker.address, "VIRTFLOW_PRODUCER_INTERVAL_SECONDS": "1"}
        with quiet():
            began = time.monotonic()
            process = node.spawn(command(stage, settings), folder / "producer.log")
            await_true(topic.arrived, READY_SECONDS, f"the image's producer sends (see {folder}/producer.log)")
            started, cpu = time.monotonic() - began, cpu_seconds(process.pid)
            time.sleep(WATCHED_SECONDS)
            values = topic.sample()
            resident, private = memory_mib(process.pid)
            found: dict[str, Any] = {
                "vms": VMS,
                "values_a_vm": values / VMS,
                "start_seconds": started,
                "resident_mib": resident,
                "private_mib": private,
                "client_microseconds": (cpu_seconds(process.pid) - cpu) / WATCHED_SECONDS / VMS * 1e6,
                "user": _of(process.pid, "status", "Uid:"),
                "capabilities": _of(process.pid, "status", "CapEff:"),
                "root": "read-only" if _read_only(process.pid) else "writable",
            }
            found["ended_with"] = process.stop(15.0)
        topic.close()
    return found


def _of(pid: int, file: str, key: str) -> str:
    return Path(f"/proc/{pid}/{file}").read_text().partition(key)[2].split()[0]


def _read_only(pid: int) -> bool:
    """Whether the process can't write to its own root (source: proc_pid_mountinfo(5): the mount's own options are the sixth field)."""
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return next("ro" in words[5].split(",") for words in mounts if words[4] == "/")


def run(asked: Asked) -> dict[str, Any]:
    """See ``bench.part``."""
    return measure(asked.folder)


def section(found: dict[str, Any]) -> list[str]:
    """The part of the page."""
    running, layer = found["running"], found["images"]["producer"]["layer_bytes"]
    reached = "reached" if layer < LAYER_GOAL_BYTES else "missed"
    return [
        "## Images",
        origin(found, "scripts/bench images"),
        (
            "The stages of the container files, made as folders by debootstrap, chroot and cp from the same files (`scripts/image_root.py`): no "
            "container engine runs here. The base is Debian slim with its Python; the layer is what the image has on top of it, uncompressed."
        ),
        table(
            ("image", "Debian slim", "with Python", "layer", "files in it", "whole"),
            [
                (
                    name,
                    f"{image['debian_bytes'] / 1e6:.0f} MB",
                    f"{image['base_bytes'] / 1e6:.0f} MB",
                    f"{image['layer_bytes'] / 1e6:.1f} MB",
                    str(image["layer_files"]),
                    f"{image['bytes'] / 1e6:.0f} MB",
                )
                for name, image in found["images"].items()
            ],
        ),
        f"Goal: the producer's layer below {LAYER_GOAL_BYTES / 1e6:.0f} MB: {reached}.",
        (
            f"The producer ran from it on a real libvirtd with {running['vms']} VMs and a real broker: root {running['root']}, user {running['user']} (libvirtd serves only users that its host knows), "
            f"capabilities {running['capabilities']}, no new privileges; first round after {running['start_seconds']:.1f} s, "
            f"{running['values_a_vm']:.0f} values a VM, {running['client_microseconds']:.0f} µs of CPU a VM-sample, {running['resident_mib']:.0f} MiB resident "
            f"({running['private_mib']:.0f} its own); ended by SIGTERM with {running['ended_with']}."
        ),
    ]
