"""Where the exporter's time comes from: handed in, so that tests make it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Clocks:
    """``now`` gives seconds that never go back, ``wall`` Unix seconds."""

    now: Callable[[], float]
    wall: Callable[[], float]


SYSTEM: Final = Clocks(time.monotonic, time.time)
