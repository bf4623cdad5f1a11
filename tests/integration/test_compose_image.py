"""What the compose file says of the centre's image, run in that image's root: each command, and the health check that waits for it.

The image is made from its container file without a container engine, in minutes: with ``--long`` alone. The images of others (Kafka, MinIO,
Prometheus, Grafana) are run by nobody here: no registry of images can be reached.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from scripts.image_root import FINAL, ROOT, Stage, build
from scripts.supervise import await_true
from tests.support.broker import Broker, free_ports
from tests.support.s3 import ObjectStore

SERVICES: Final[dict[str, dict[str, Any]]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
WATCHED: Final = ("processors", "exporter", "history", "history-serve")
READY_SECONDS: Final = 60.0
KEYS: Final = "var/lib/virtflow/keys"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The centre's image as a root file system."""
    return build(ROOT / "deploy" / "container" / "centre.Dockerfile", tmp_path_factory.mktemp("image"))[FINAL]


@pytest.fixture(scope="module")
def around(image: Stage, broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Broker and storage, as settings in place of the compose file's own: its ``keys`` service has made the storage's password."""
    done = run(image, "keys", {})
    assert done.returncode == 0, done.stderr
    with ObjectStore(tmp_path_factory.mktemp("storage")) as store:
        yield {
            "VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS": broker.address,
            "VIRTFLOW_TOPICS_PREFIX": "image.",
            "VIRTFLOW_HISTORY_S3_ENDPOINT": store.settings["VIRTFLOW_HISTORY_S3_ENDPOINT"],
        }


def contained(image: Stage, words: Sequence[str], settings: Mapping[str, str]) -> list[str]:
    """What starts words as an engine would: a read-only root, the image's user and environment, no way to more privileges."""
    inner = ["env", "-i", *(f"{key}={value}" for key, value in {**image.environment, **settings}.items()), *words]
    steps = [
        f"mount --bind {image.root} {image.root}",
        f"mount -t proc proc {image.root}/proc",
        f"mount -t tmpfs tmpfs {image.root}/tmp",  # noqa: S108, the root's own
        f"mount --bind /dev {image.root}/dev",
        f"mount -o remount,bind,ro {image.root}",
        f"mount --bind {image.root}/{KEYS} {image.root}/{KEYS}",
        f"mount -o remount,bind,rw {image.root}/{KEYS}",
        f"exec chroot --userspec={image.user}:{image.user} {image.root} setpriv --no-new-privs {shlex.join(inner)}",
    ]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", " && ".join(steps)]


def command_of(image: Stage, name: str) -> list[str]:
    """What a service runs: its own entry point or the image's, then its command."""
    return [*SERVICES[name].get("entrypoint", image.entrypoint), *SERVICES[name]["command"]]


def run(image: Stage, name: str, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A service that ends by itself, to its end."""
    given = {**SERVICES[name]["environment"], **settings}
    return subprocess.run(contained(image, command_of(image, name), given), capture_output=True, text=True, timeout=120, check=False)


def test_the_keys_are_made_once(image: Stage, around: dict[str, str]) -> None:
    """No two installations have the same password, and a second start does not change it."""
    assert around
    password = (image.root / KEYS / "storage.password").read_text()
    assert len(password) >= 32
    assert run(image, "keys", {}).returncode == 0
    assert (image.root / KEYS / "storage.password").read_text() == password


def test_each_service_becomes_healthy_and_stops(image: Stage, around: dict[str, str], tmp_path: Path) -> None:
    """By its own command and its own health check, in the file's order; before the service listens, the check says so."""
    done = run(image, "topics", around)
    assert done.returncode == 0, done.stdout + done.stderr
    with contextlib.ExitStack() as running:
        for name in WATCHED:
            running.enter_context(healthy(image, name, around, tmp_path / f"{name}.log"))


@contextlib.contextmanager
def healthy(image: Stage, name: str, settings: Mapping[str, str], log: Path) -> Iterator[None]:
    """A service on a port of this machine's, until its health check passes; ended as an engine ends it."""
    listened = SERVICES[name]["command"][-1].rpartition(":")[2]
    (port,) = free_ports(1)
    words = [re.sub(rf":{listened}$", f":{port}", word) for word in command_of(image, name)]
    program, *check = SERVICES[name]["healthcheck"]["test"]
    assert program == "CMD"
    check = contained(image, [word.replace(f":{listened}/", f":{port}/") for word in check], {})
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1
    with log.open("wb") as out:
        process = subprocess.Popen(
            contained(image, words, {**SERVICES[name]["environment"], **settings}), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        passes = await_true(lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0, READY_SECONDS)
        assert passes, f"{name}: {log.read_text()[-3000:]}"
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, f"{name}: {log.read_text()[-3000:]}"
    finally:
        process.kill()
        process.wait(15)
