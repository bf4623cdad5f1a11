"""``virtflow`` that kills itself (SIGKILL) at a chosen point of a commit: ``python -m tests.support.failpoints POINT COUNT WORDS...``.

Points: ``rows`` before rows are made, ``write`` before a file is written, ``file`` when it is there and nobody knows, ``before commit``,
``commit`` when the commit is made and its maker does not know. COUNT is how many times the point is passed first.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

POINTS = ("write", "file", "before commit", "commit", "rows")


def _dying(function: Callable[..., Any], passes: int, *, after: bool) -> Callable[..., Any]:
    left = [passes]

    def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, whatever the function takes
        result = function(*args, **kwargs) if after else None
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return result if after else function(*args, **kwargs)

    return wrapped


def main() -> None:
    """Arms the point and runs the command."""
    point, passes, *words = sys.argv[1:]
    from virtflow.cli.main import run
    from virtflow.history.storage.delta import Opened
    from virtflow.history.writer.rows import record_rows as rows
    from virtflow.history.writer.sample_batch import RawSamples

    match point:
        case "write" | "file":
            Opened.write_file = _dying(Opened.write_file, int(passes), after=point == "file")  # type: ignore[method-assign]
        case "commit" | "before commit":
            Opened.commit = _dying(Opened.commit, int(passes), after=point == "commit")  # type: ignore[method-assign]
        case "rows":
            for name, function in list(rows.ROWS.items()):
                rows.ROWS[name] = _dying(function, int(passes), after=False)
            RawSamples.rows = _dying(RawSamples.rows, int(passes), after=False)  # type: ignore[method-assign]
    sys.argv = ["virtflow", *words]
    sys.exit(run())


if __name__ == "__main__":
    main()
