"""Tests on several hypervisors: a test file says which by RELEASES, and its labs take them from the fixture ``release``, once per file."""

from __future__ import annotations

import pytest

from tests.support.lab_release import usual


def on_each_release(metafunc: pytest.Metafunc) -> None:
    """To be called by a conftest's ``pytest_generate_tests``: run what uses ``release`` on each of its file's RELEASES (the usual one).

    A file's tests on one release come together, so that each lab is started once.
    """
    if "release" in metafunc.fixturenames:
        metafunc.parametrize("release", getattr(metafunc.module, "RELEASES", (usual(),)), scope="module")
