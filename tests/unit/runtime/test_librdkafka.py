"""The client without its package's load, and the package whole for whoever asks for it."""

from __future__ import annotations

import subprocess
import sys


def said(program: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_the_client_alone_loads_no_event_loop_and_no_tls() -> None:
    program = "from virtflow.runtime.kafka import librdkafka; import sys; print(*sys.modules)"
    loaded = set(said(program))
    assert "confluent_kafka.cimpl" in loaded
    assert not loaded & {"asyncio", "ssl", "confluent_kafka.serializing_producer"}


def test_whoever_imports_the_package_afterwards_finds_all_of_it() -> None:
    """Its names, its sub-modules, and the same classes."""
    program = (
        "from virtflow.runtime.kafka.librdkafka import KafkaError, Producer; import confluent_kafka.error; import confluent_kafka\n"
        "from confluent_kafka import SerializingProducer; from confluent_kafka.admin import AdminClient; import confluent_kafka.schema_registry\n"
        "print(confluent_kafka.Producer is Producer, confluent_kafka.KafkaError is KafkaError, hasattr(confluent_kafka, 'no_such'))"
    )
    assert said(program) == ["True", "True", "False"]


def test_a_package_that_is_loaded_already_is_left_alone() -> None:
    program = "import confluent_kafka; from virtflow.runtime.kafka.librdkafka import Producer; print(confluent_kafka.Producer is Producer)"
    assert said(program) == ["True"]


def test_where_it_is_not_installed_its_name_is_told() -> None:
    program = (
        "import sys\n"
        "class Nothing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.startswith('confluent_kafka'): raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Nothing())\n"
        "try:\n    import virtflow.runtime.kafka.librdkafka\n"
        "except ModuleNotFoundError as error: print(error.name)"
    )
    assert said(program) == ["confluent_kafka"]
