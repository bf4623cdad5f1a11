"""A running producer loads what it uses, and asks libvirtd once in a round: anything more is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import counts_producer

NEVER = (
    "asyncio",
    "ssl",
    "fastavro",
    "aiohttp",
    "email",
    "importlib.metadata",
    "virtflow.exporter",
    "virtflow.processors",
    "virtflow.history",
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return counts_producer.observe(tmp_path_factory.mktemp("producer"))


def test_it_loads_and_asks_nothing_new(seen: dict[str, Any]) -> None:
    wrong = counts_producer.more(seen, json.loads(counts_producer.BASELINE.read_text()))
    assert not wrong, "\n".join([*wrong, f"if that is meant: {counts_producer.COMMAND}"])


def test_the_whole_round_is_one_call(seen: dict[str, Any]) -> None:
    """However many VMs there are; what else it knows comes by events, or is asked every few minutes."""
    assert seen["calls_per_round"] == {"virConnectGetAllDomainStats": 1.0}


def test_the_centres_packages_stay_out(seen: dict[str, Any]) -> None:
    """Nor do they get into the baseline by a hasty command."""
    baseline = json.loads(counts_producer.BASELINE.read_text())
    for names in (seen["modules"], baseline["modules"]):
        assert not [name for name in names for word in NEVER if name == word or name.startswith(f"{word}.")]


def test_the_guard_names_what_is_new() -> None:
    before = {"modules": ["os"], "calls_per_round": {"virConnectGetAllDomainStats": 1}}
    now = {"modules": ["asyncio", "os"], "calls_per_round": {"virConnectGetAllDomainStats": 2, "virDomainGetXMLDesc": 0.5}}
    assert counts_producer.more(now, before) == [
        "a running producer loads asyncio",
        "a round of the producer calls virConnectGetAllDomainStats 2 times, not 1",
        "a round of the producer calls virDomainGetXMLDesc 0.5 times, not 0",
    ]
    assert Path(counts_producer.BASELINE).exists()


def test_what_a_known_module_loads_is_known() -> None:
    """Which ones it needs differs from Python to Python."""
    found = counts_producer.brought_along(["os", "msgspec", "xml"])
    assert {"os", "stat", "posixpath", "xml"} <= found
    assert not {"msgspec", "asyncio"} & found
