"""Every setting, declared once: type, default, bounds, switch and help. Each section is declared in ``runtime/sections/`` and imported from here.

From the rows come the TOML file, the environment variables (``VIRTFLOW_SECTION_KEY``), the switches, ``config sample`` and
``docs/settings.md``. Later ones win: default, file, environment, switch.
"""

from __future__ import annotations

from msgspec import Struct, field

from virtflow.runtime.sections.adapter import Adapter
from virtflow.runtime.sections.exporter import Exporter
from virtflow.runtime.sections.guest import Guest
from virtflow.runtime.sections.history import History
from virtflow.runtime.sections.kafka import Kafka, Registry, Topics
from virtflow.runtime.sections.libvirt import Libvirt
from virtflow.runtime.sections.log import Log
from virtflow.runtime.sections.processors import Processors
from virtflow.runtime.sections.producer import Producer
from virtflow.runtime.sections.simulate import Simulate
from virtflow.runtime.sections.web import Web

__all__ = [
    "Adapter",
    "Exporter",
    "Guest",
    "History",
    "Kafka",
    "Libvirt",
    "Log",
    "Processors",
    "Producer",
    "Registry",
    "Settings",
    "Simulate",
    "Topics",
    "Web",
]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All sections."""

    libvirt: Libvirt = field(default_factory=Libvirt)
    producer: Producer = field(default_factory=Producer)
    guest: Guest = field(default_factory=Guest)
    kafka: Kafka = field(default_factory=Kafka)
    topics: Topics = field(default_factory=Topics)
    registry: Registry = field(default_factory=Registry)
    processors: Processors = field(default_factory=Processors)
    exporter: Exporter = field(default_factory=Exporter)
    adapter: Adapter = field(default_factory=Adapter)
    history: History = field(default_factory=History)
    web: Web = field(default_factory=Web)
    simulate: Simulate = field(default_factory=Simulate)
    log: Log = field(default_factory=Log)
