"""The pages of a service that runs, as a client sees them."""

from __future__ import annotations

import urllib.error
import urllib.request

PAGE_SECONDS = 5.0


def page(address: str, path: str) -> tuple[int, str]:
    """Status and text of a page at ``host:port``; status 0 where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=PAGE_SECONDS) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""
