"""Fetches and builds what tests run and the machine lacks, so that no test waits for it: ``python -m tests.support.prefetch``.

Each part is kept under VIRTFLOW_DATA, behind a lock: a test that comes too early waits for it, and fetches it where this has failed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.support import flink, kafka_connect, lab_guest, lab_release, real_registry, s3, spark
from tests.support.kubernetes import build
from tests.support.long import LONG
from tools.helm.program import helm


def main() -> int:
    """Fetch all at a time; 1 when something fails."""
    with ThreadPoolExecutor() as pool:
        fetches: tuple[Callable[[], object], ...] = (
            lab_guest.guest_image,
            real_registry.fetched,
            s3.program,
            spark.packages,
            flink.fetched,
            kafka_connect.fetched,
            *(partial(lab_release.root_of, name) for name in lab_release.releases(every_run=True)),
            *([build.programs, helm] if LONG else []),  # many minutes of a CPU, for tests that run with --long alone
        )
        parts = [pool.submit(fetch) for fetch in fetches]
    failures = [error for part in parts if (error := part.exception()) is not None]
    for error in failures:
        print(f"prefetch: {error}", file=sys.stderr)  # noqa: T201, a program
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
