"""Scrapes of an exporter while something goes wrong elsewhere: no VM is missing, and no value goes back."""

from __future__ import annotations

from typing import ClassVar

from tests.support.exporter_process import ExporterProcess
from tests.support.watching import Watching


class SteadyScrapes(Watching):
    """Scrapes again and again, for as long as its context lasts."""

    pause_seconds: ClassVar[float] = 0.2

    def __init__(self, exporter: ExporterProcess, vms: int) -> None:
        """``vms`` are to be shown in each scrape."""
        self._exporter = exporter
        self._vms = vms
        self._newest: dict[str, float] = {}
        self.scrapes = 0

    def look(self) -> None:
        """One scrape."""
        values = {
            dict(labels)["uuid"]: value for (name, labels), value in self._exporter.series().items() if name == "vm_cpu_seconds_total"
        }
        assert len(values) == self._vms
        back = {uuid: (self._newest[uuid], value) for uuid, value in values.items() if value < self._newest.get(uuid, 0.0)}
        assert not back
        self._newest = values
        self.scrapes += 1
