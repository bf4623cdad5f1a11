"""What the integration tests share: one real broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One real broker for all; a test that stops or kills it makes one of its own."""
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running
