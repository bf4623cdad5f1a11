"""Takes the picture of a graph at Prometheus, in Chromium without a window: the PNG in README.md is Prometheus' own page.

    scripts/up --source simulator                                  in another terminal, for some minutes
    python -m tools.prometheus_picture docs/images/prometheus.png vm_migration_progress_ratio

``--url`` is where Prometheus is, ``--range`` how far back the graph reaches. Debian's package chromium has the program.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import urllib.parse
from pathlib import Path
from typing import Final

SIZE: Final = (1180, 830)
"""Of the picture, in pixels."""
DRAWN_MS: Final = 10_000
"""How much time the page is given to ask and to draw, by its own clock."""


def address(url: str, promql: str, back: str) -> str:
    """The page of a graph."""
    return f"{url}/graph?{urllib.parse.urlencode({'g0.expr': promql, 'g0.tab': '0', 'g0.range_input': back})}"


def command(program: str, page: str, file: Path, profile: str) -> list[str]:
    """Chromium's command line; it writes the picture and ends."""
    width, height = SIZE
    switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    return [
        program,
        *switches,
        f"--window-size={width},{height}",
        f"--virtual-time-budget={DRAWN_MS}",
        f"--screenshot={file.resolve()}",
        page,
    ]


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.prometheus_picture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("promql")
    parser.add_argument("--url", default="http://localhost:9090")
    parser.add_argument("--range", default="3m", dest="back")
    parser.add_argument("--chromium", default="chromium", help="the program")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(command(words.chromium, address(words.url, words.promql, words.back), words.file, profile), check=True)


if __name__ == "__main__":
    main()
