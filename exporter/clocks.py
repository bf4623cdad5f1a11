"""The exporter's clocks, injected so that tests can control time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Clocks:
    """``now`` returns monotonic seconds, ``wall`` Unix seconds."""

    now: Callable[[], float]
    wall: Callable[[], float]


SYSTEM: Final = Clocks(time.monotonic, time.time)
