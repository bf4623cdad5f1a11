"""Fault 33: the credentials for the broker are replaced while everything runs, and the old ones are refused from then on.

Every service goes on with the new files by itself: none is started again, nothing is lost, and every VM is shown all the time.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.criteria import Criteria
from tests.support.exporter_process import ExporterProcess
from tests.support.figures import figure
from tests.support.history import Writer, key_of, wait_for_samples, writing
from tests.support.outage import assert_events, await_processed, events_of, rounds_of
from tests.support.processors import Bus, Processors, eventually
from tests.support.secure_broker import ADMIN, SecureBroker
from tests.support.simulated_producer import SimulatedProducer
from tests.support.watching import Watching
from virtflow.schemas.records import VmMetrics
from virtflow.schemas.topics import METRICS

ROW = 33
INTERVAL = 5.0
VMS = 5
SECONDS = 90.0
CPU = "vm_cpu_seconds_total"
NOTICED = "the credentials for the brokers were changed"


class Rotation(ABC):
    """Credentials that are replaced: the files are new, and from its next start on the broker takes these alone."""

    broker: SecureBroker

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """What a service has to know to connect."""

    @abstractmethod
    def replace(self) -> None:
        """The new credentials, as an operator lays them: each file at once."""


class PasswordRotation(Rotation):
    """A user's SCRAM password: the broker has the new one first, and refuses the old one at once."""

    def __init__(self, folder: Path) -> None:
        """The broker is not started."""
        self.broker = SecureBroker(folder / "broker")
        self._folder = folder

    def environment(self) -> dict[str, str]:
        """By SASL_SSL."""
        return self.broker.as_user(ADMIN, self._folder)

    def replace(self) -> None:
        """On the broker, then in the file."""
        self.broker.set_passwords({ADMIN: secrets.token_hex(8)})
        file = self._folder / f"{ADMIN}.password"
        fresh = file.with_suffix(".new")
        fresh.write_text(self.broker.passwords[ADMIN] + "\n")
        fresh.replace(file)


class CertifiedBroker(SecureBroker):
    """Takes clients' certificates of the authorities in a file; a certificate's common name is its user."""

    def __init__(self, folder: Path) -> None:
        """With an authority for the old certificates and one for the new ones."""
        super().__init__(folder)
        self.next = Authority(folder / "tls", "next")
        self.clients = folder / "clients.pem"
        self.trust(self.authority, self.next)

    def trust(self, *authorities: Authority) -> None:
        """From the next start on."""
        self.clients.write_text("".join(authority.file.read_text() for authority in authorities))

    def _properties(self) -> str:
        lines = {"ssl.truststore.location": str(self.clients), "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT"}
        return super()._properties() + "".join(f"{key}={value}\n" for key, value in lines.items())

    def renew(self) -> None:
        """Shows a certificate of the new authority, and takes no other authority's."""
        self._server = self.next.server("renewed")
        self.trust(self.next)


class CertificateRotation(Rotation):
    """Certificates of both sides: a new authority signs the clients', and then the broker's."""

    broker: CertifiedBroker

    def __init__(self, folder: Path) -> None:
        """The broker is not started."""
        self.broker = CertifiedBroker(folder / "broker")
        self._pair = self.broker.authority.issue("client", "client@example.org", common_name=ADMIN)
        self._authorities = folder / "authorities.pem"
        self._authorities.write_text(self.broker.authority.file.read_text())

    def environment(self) -> dict[str, str]:
        """By SSL."""
        settings = {
            "bootstrap_servers": self.broker.certified,
            "security_protocol": "SSL",
            "tls_ca_file": str(self._authorities),
            "tls_certificate_file": str(self._pair.certificate),
            "tls_key_file": str(self._pair.key),
        }
        return {f"VIRTFLOW_KAFKA_{key.upper()}": value for key, value in settings.items()}

    def replace(self) -> None:
        """First the authorities, then the key, then the certificate: for a moment they do not fit together."""
        both = self._authorities.with_suffix(".new")
        both.write_text(self.broker.authority.file.read_text() + self.broker.next.file.read_text())
        both.replace(self._authorities)
        fresh = self.broker.next.issue("fresh", "client@example.org", common_name=ADMIN)
        fresh.key.replace(self._pair.key)
        fresh.certificate.replace(self._pair.certificate)
        self.broker.renew()


class Scrapes(Watching):
    """Scrapes an exporter: every VM is there each time. ``longest`` is how long one had no newer value, in seconds."""

    pause_seconds = 0.25

    def __init__(self, exporter: ExporterProcess) -> None:
        """The exporter shows all VMs already."""
        self._exporter = exporter
        self._seen: dict[str, tuple[float, float]] = {}
        self.longest = 0.0

    def look(self) -> None:
        """Scrapes once."""
        shown = {dict(labels)["uuid"]: value for (name, labels), value in self._exporter.series().items() if name == CPU}
        assert len(shown) == VMS
        now = time.monotonic()
        for uuid, value in shown.items():
            last, since = self._seen.get(uuid, (value, now))
            self._seen[uuid] = (value, now if value != last else since)
            self.longest = max(self.longest, now - self._seen[uuid][1])


@pytest.fixture(params=[PasswordRotation, CertificateRotation], ids=["password", "certificates"])
def rotation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rotation]:
    rotation: Rotation = request.param(tmp_path)
    with rotation.broker:
        yield rotation


def test_every_service_goes_on_with_the_new_ones(rotation: Rotation, tmp_path: Path, criteria: Criteria) -> None:
    bus, broker = Bus(rotation.broker, partitions=2), rotation.broker
    bus.create_topics()
    env, history = rotation.environment(), tmp_path / "history"
    bare = {key.removeprefix("VIRTFLOW_"): value for key, value in env.items()}
    producer = SimulatedProducer({**bus.environment(), **env}, tmp_path, vms=VMS, interval=INTERVAL)
    processors = Processors(bus, tmp_path / "processors", **{key.lower(): value for key, value in bare.items()})
    exporter = ExporterProcess(tmp_path, bare["KAFKA_BOOTSTRAP_SERVERS"], bus.prefix, bare)
    writer = Writer(env["VIRTFLOW_KAFKA_BOOTSTRAP_SERVERS"], history, tmp_path, {**env, "VIRTFLOW_TOPICS_PREFIX": bus.prefix})
    with producer, processors, exporter, writing(writer):
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_vms") == VMS, SECONDS, "all VMs")
        wait_for_samples(history, VMS, SECONDS, writer)
        criteria.baseline()
        with Scrapes(exporter) as scrapes:
            rotation.replace()
            logs = [producer.log, processors.log, exporter.log, writer.log]
            eventually("all services notice", lambda: all(NOTICED in log.read_text() for log in logs), SECONDS)
            before = len(rounds_of(bus, producer))
            eventually("rounds by the new ones", lambda: len(rounds_of(bus, producer)) > before + 1, SECONDS)
        assert scrapes.longest < 2 * INTERVAL
        figure(ROW, "longest without a newer value", round(scrapes.longest / INTERVAL, 1), "I")
        broker.restart()  # which ends all connections: each client has to show what it has
        back, taken = time.time(), len(producer.taken())
        eventually("a round after it", lambda: rounds_of(bus, producer)[-1].collected > back, SECONDS)
        eventually("an event after it", lambda: len(events_of(bus, producer)) > taken, SECONDS)
        criteria.settled(row=ROW)
        assert producer.stop() == 0
        await_processed(bus, [producer], ROW)
        samples = bus.records(METRICS, VmMetrics)
        found = wait_for_samples(history, len(set(map(key_of, samples))), SECONDS, writer)
        exporter.wait_until(lambda: exporter.value("virtflow_exporter_lag_messages", topic=METRICS.name) == 0, SECONDS, "all read")
        assert processors.terminate() == 0
        assert exporter.stop() == 0
        assert writer.stop() == 0
    assert_events(bus, producer, ROW)
    numbers = {one.sequence for one in rounds_of(bus, producer)}
    assert numbers == set(range(max(numbers) + 1))
    assert found == Counter(set(map(key_of, samples)))
    figure(ROW, "rounds, none of them lost", len(numbers))
