"""The embedded broker: Apache Kafka from Maven Central's jars on Java 17, for scripts/up and for the tests.

``fetch`` copies the jars of ``deploy/embedded/pom.xml`` into the data folder, once. ``run`` formats a storage folder, once, and
becomes the broker: the process id stays the same, so whoever started it can signal it. Standard library only, so that it runs
before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import string
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHECKOUT = Path(__file__).resolve().parent.parent
EMBEDDED = CHECKOUT / "deploy" / "embedded"
READY_SECONDS = 60.0
LOOPBACK = "127.0.0.1"
META = "meta.properties"


class CannotRunError(Exception):
    """Something that the broker needs is missing; the text names it and the fix."""


def data_folder() -> Path:
    """Return the folder that everything downloaded or written goes to: $VIRTFLOW_DATA, or .virtflow in the checkout."""
    return Path(os.environ.get("VIRTFLOW_DATA") or CHECKOUT / ".virtflow").resolve()


def fetch() -> Path:
    """Copy the broker's jars into the data folder unless they are there, and return their folder.

    The folder's name carries a digest of the pom, so a changed version is fetched again. Raises CannotRunError.
    """
    pom = EMBEDDED / "pom.xml"
    jars = data_folder() / "kafka" / hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    jars.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(jars.parent / "fetch.lock"):
        if not jars.is_dir():
            _copy_jars(pom, jars)
    return jars


@contextlib.contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same lock file, which is made where it is missing."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _copy_jars(pom: Path, jars: Path) -> None:
    maven = _program("mvn", "maven")
    part = jars.with_suffix(".part")
    repository = jars.parent / "maven"
    shutil.rmtree(part, ignore_errors=True)
    print("Fetching the embedded Kafka's jars (45 MB, once) ...", file=sys.stderr, flush=True)
    command = [maven, "-q", "-B", "-f", str(pom), f"-Dmaven.repo.local={repository}", "dependency:copy-dependencies"]
    command += [f"-DoutputDirectory={part}", "-DincludeScope=runtime"]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode or not any(part.glob("kafka_*.jar")):
        shutil.rmtree(part, ignore_errors=True)
        reason = f"Maven ended with {done.returncode} and left no jars: is its repository reachable? {done.stdout.strip()[-1500:]}"
        raise CannotRunError(reason)
    part.rename(jars)
    shutil.rmtree(repository, ignore_errors=True)


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is missing: apt-get install {package}"
        raise CannotRunError(reason)
    return found


def format_storage(java: Sequence[str], folder: Path, properties: Path) -> None:
    """Give the storage folder its cluster id unless it has one. Raises CannotRunError.

    What Kafka's own tool writes is kept and copied: to run it takes Java a second.
    """
    log = folder / "log"
    if (log / META).exists():
        return
    try:
        kept = _formatted(java, properties)
        log.mkdir(parents=True, exist_ok=True)
        for file in kept.iterdir():
            if file.name != META:
                shutil.copy(file, log)
        meta = re.sub(
            r"^(cluster|directory)\.id=.*$", lambda line: f"{line[1]}.id={_new_id()}", (kept / META).read_text(), flags=re.MULTILINE
        )
        (log / META).write_text(meta)
    except OSError as error:
        reason = f"formatting {folder} failed: {error}"
        raise CannotRunError(reason) from error


def _formatted(java: Sequence[str], properties: Path) -> Path:
    """Return a folder as Kafka's tool formats it, made on first use beside the jars."""
    jars = fetch()
    kept = jars.with_suffix(".formatted")
    with one_at_a_time(jars.parent / "fetch.lock"):
        if not kept.is_dir():
            part = kept.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            own = part.with_suffix(".properties")
            own.write_text(re.sub(r"^log\.dirs=.*$", f"log.dirs={part}", properties.read_text(), flags=re.MULTILINE))
            command = [*java, "kafka.tools.StorageTool", "format", "-t", _new_id(), "-c", str(own)]
            done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            own.unlink()
            if done.returncode:
                reason = f"formatting {part} failed: {(done.stderr or done.stdout).strip()[-2000:]}"
                raise CannotRunError(reason)
            part.rename(kept)
    return kept


def _new_id() -> str:
    """Return an identity as Kafka writes them; none begins like a switch."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")


def write_properties(folder: Path, host: str, port: int, controller_port: int, more: Path | None = None) -> Path:
    """Write the broker's settings from the template, and those of the file ``more`` behind them, which win; return their file."""
    template = string.Template((EMBEDDED / "server.properties").read_text())
    names = {"HOST": host, "PORT": port, "CONTROLLER_PORT": controller_port, "DATA": folder / "log"}
    folder.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(template.substitute({**names, "NAMES": "$NAMES"}) + ("" if more is None else more.read_text()))
    return properties


def refuse_taken_port(host: str, port: int) -> None:
    """Raise CannotRunError when something listens there: Java's own words would be thirty lines."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = f"{host}:{port} cannot be used ({error.strerror}): choose others with --port and --controller-port"
            raise CannotRunError(reason) from error


def announce_when_ready(host: str, port: int) -> None:
    """Leave a process behind that prints one line when the port answers and ends; it also ends when the broker is gone."""
    broker = os.getpid()
    if os.fork():
        os.wait()
        return
    if os.fork() == 0:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and Path(f"/proc/{broker}").exists():
            with contextlib.suppress(OSError), socket.create_connection((host, port), 1.0):
                print(f"Kafka is ready at {host}:{port} (pid {broker})", flush=True)
                break
            time.sleep(0.1)
    os._exit(0)


def run(folder: Path, host: str, port: int, controller_port: int, more: Path | None = None) -> None:
    """Become the broker; never returns. Raises CannotRunError before that."""
    java = [_program("java", "default-jre-headless"), "-cp", f"{fetch()}/*", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    heap = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"]
    for needed in (port, controller_port):
        refuse_taken_port(host, needed)
    properties = write_properties(folder, host, port, controller_port, more)
    format_storage([*java, "-XX:TieredStopAtLevel=1"], folder, properties)
    announce_when_ready(host, port)
    os.execv(java[0], [*java, *heap, "kafka.Kafka", str(properties)])  # noqa: S606 - the broker takes this process over


def main(words: Sequence[str]) -> int:
    """Run one of the sub-commands; 0 fine, 1 it cannot run, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="scripts/kafka", description="The embedded Apache Kafka.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="bring the jars, once, and print their folder")
    runs = commands.add_parser("run", help="be the broker, in the foreground, until a signal comes")
    runs.add_argument("--dir", type=Path, required=True, help="storage folder; formatted on first use")
    runs.add_argument("--port", type=int, default=9092, help="the clients' port (default 9092)")
    runs.add_argument("--controller-port", type=int, help="the controller's port (default PORT + 1)")
    runs.add_argument("--host", default=LOOPBACK, help="the address to listen on (default 127.0.0.1)")
    runs.add_argument("--properties", type=Path, help="a file of further settings of the broker, which win over ours")
    chosen = parser.parse_args(words)
    try:
        if chosen.command == "fetch":
            print(fetch())
        else:
            run(chosen.dir.resolve(), chosen.host, chosen.port, chosen.controller_port or chosen.port + 1, chosen.properties)
    except CannotRunError as error:
        print(f"scripts/kafka: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
