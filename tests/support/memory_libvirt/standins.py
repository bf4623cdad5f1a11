"""Puts virtual time into the modules under test.

standins.install(monkeypatch, clock, [module, ...])
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tests.support.memory_libvirt.clock import VirtualClock
from tests.support.virtual_time.standins import Queue, Threading, Time

if TYPE_CHECKING:
    import pytest


def install(monkeypatch: pytest.MonkeyPatch, clock: VirtualClock, modules: Iterable[ModuleType]) -> None:
    """Put the stand-ins into every module that took the real ones."""

    def simple_queue() -> Queue[Any]:
        return Queue(clock)

    places = {"time": (time, Time(clock)), "threading": (threading, Threading(clock)), "SimpleQueue": (queue.SimpleQueue, simple_queue)}
    for module in modules:
        for name, (real, standin) in places.items():
            if getattr(module, name, None) is real:
                monkeypatch.setattr(module, name, standin)
