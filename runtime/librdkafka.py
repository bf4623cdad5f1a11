"""librdkafka's Python client without the package around it.

``import confluent_kafka`` loads asyncio, ssl and sixty modules more for serializers that virtflow has no use for: 10 MB and 30 ms in a producer
that needs three classes (measured: 9.8 MB against 2.4 MB for the extension alone). So the extension module is loaded by its own name,
which needs no package; whoever imports the package later, here or in a library, finds all of it, with the same classes.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Final

PACKAGE: Final = "confluent_kafka"
EXTENSION: Final = f"{PACKAGE}.cimpl"


def _extension() -> ModuleType:
    """The extension module; raises ``ModuleNotFoundError`` where the package is not installed."""
    if loaded := sys.modules.get(EXTENSION):
        return loaded
    package = find_spec(PACKAGE)  # finds it; only an import would run its code
    spec = PathFinder.find_spec(EXTENSION, package.submodule_search_locations) if package is not None else None
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    extension = module_from_spec(spec)
    sys.modules[EXTENSION] = extension
    spec.loader.exec_module(extension)
    return extension


_client = _extension()
KafkaError: Final = _client.KafkaError
KafkaException: Final = _client.KafkaException
Producer: Final = _client.Producer
