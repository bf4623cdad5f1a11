"""``python -m virtflow``: the command ``virtflow``, where its script is not on the path."""

from __future__ import annotations

import sys

from virtflow.cli.main import run

sys.exit(run())
