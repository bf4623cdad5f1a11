"""What the integration tests share: one real broker. Which of them run with ``--long`` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTROL_PLANE: Final = frozenset(
    {
        "test_adapter.py",
        "test_adapter_least_role.py",
        "test_adapter_prometheus_api.py",
        "test_adapter_scaling.py",
        "test_helm_install.py",
    }
)
"""They need a Kubernetes control plane, which is built from its Go modules: twelve minutes of a CPU. The unit tests use a double of it."""
HELM: Final = frozenset({"test_helm_chart.py"})
"""They need Helm, which is built from its Go module: five minutes of a CPU. Contract tests read what it has rendered."""
INSTALLED: Final = frozenset(
    {
        "test_ansible.py",
        "test_compose_image.py",
        "test_debian_packages.py",
        "test_deploy_page.py",
        "test_install_fleet.py",
        "test_sbom.py",
        "test_systemd.py",
    }
)
"""They need images and packages, which are built in root file systems of Debian's releases, or a tool that only a release needs: minutes each."""

WHOLE: Final = frozenset({"test_secured_pipeline.py"})
"""Whole pipelines, of which each promise has a shorter test of its own."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves them out without ``--long``, unless they are named on the command line; None leaves the decision to others."""
    from tests.support.long import LONG  # not above: a conftest may be imported before the option is read

    return True if collection_path.name in CONTROL_PLANE | HELM | INSTALLED | WHOLE and not LONG else None


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One real broker for all; a test that stops or kills it makes one of its own."""
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running
