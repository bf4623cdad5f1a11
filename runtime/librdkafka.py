"""librdkafka's Python client without what its package drags in.

``import confluent_kafka`` loads asyncio, ssl and eighty modules for serializers that virtflow has no use for: 10 MB and 30 ms in a
producer that needs two classes. Here the package's own ``__init__`` waits until somebody asks for something that only it has; its
sub-modules, and everybody else who imports it, find it as usual.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

PACKAGE: Final = "confluent_kafka"


class _Waiting(ModuleType):
    """A package whose code has not run yet."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever a module has
        """Runs the package's code for what is not there, then answers as any module does."""
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def _wait() -> None:
    if PACKAGE in sys.modules:
        return
    spec: ModuleSpec | None = find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    package = module_from_spec(spec)
    package.__class__ = _Waiting
    sys.modules[PACKAGE] = package


_wait()
_client = import_module(f"{PACKAGE}.cimpl")
KafkaError: Final = _client.KafkaError
KafkaException: Final = _client.KafkaException
Producer: Final = _client.Producer
