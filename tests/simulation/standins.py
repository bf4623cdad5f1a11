"""What the programs of the stream take from modules that would tell them something of the real world: put in their places on the kernel."""

from __future__ import annotations

import os
import random
import secrets
import tempfile
import threading
import time
import uuid
from contextlib import nullcontext
from random import Random
from types import ModuleType
from typing import Any, Final

from tests.support.virtual_time.kernel import Kernel
from tests.support.virtual_time.standins import Module, Threading, Time


class Chance:
    """``os.urandom``, ``uuid.uuid4``, ``secrets`` and ``random`` from the seed."""

    def __init__(self, seed: int) -> None:
        """Of this seed."""
        self._random = Random(f"identities {seed}")  # noqa: S311, reproducible on purpose

    def urandom(self, count: int) -> bytes:
        """``os.urandom``."""
        return self._random.randbytes(count)

    def uuid4(self) -> uuid.UUID:
        """``uuid.uuid4``."""
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def randbits(self, bits: int) -> int:
        """``secrets.randbits``."""
        return self._random.getrandbits(bits)

    def token_hex(self, count: int = 32) -> str:
        """``secrets.token_hex``."""
        return self._random.randbytes(count).hex()

    def token_bytes(self, count: int = 32) -> bytes:
        """``secrets.token_bytes``."""
        return self._random.randbytes(count)

    def generator(self, seed: object = None) -> Random:
        """``random.Random``: with a seed, as it is."""
        return Random(self._random.getrandbits(64) if seed is None else seed)  # type: ignore[arg-type]  # noqa: S311, reproducible on purpose

    def of_random(self) -> dict[str, Any]:
        """The names of ``random``."""
        names = ("random", "uniform", "randint", "randrange", "choice", "choices", "shuffle", "sample", "getrandbits", "randbytes")
        return {"Random": self.generator, **{name: getattr(self._random, name) for name in names}}

    def state(self) -> object:
        """Where it stands."""
        return self._random.getstate()


REAL: Final[dict[str, ModuleType]] = {module.__name__: module for module in (time, threading, os, uuid, secrets, random, tempfile)}
"""The modules that are stood in for."""


def modules_of(kernel: Kernel, chance: Chance) -> dict[str, Any]:
    """The stand-ins, by the names of ``REAL``."""
    return {
        "time": Time(kernel),
        "threading": Threading(kernel),
        "os": Module(os, urandom=chance.urandom),
        "uuid": Module(uuid, uuid4=chance.uuid4),
        "secrets": Module(secrets, randbits=chance.randbits, token_hex=chance.token_hex, token_bytes=chance.token_bytes),
        "random": Module(random, **chance.of_random()),
        "tempfile": Module(tempfile, TemporaryDirectory=lambda **_: nullcontext("/temporary")),
    }
