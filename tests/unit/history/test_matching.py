"""Which labels a query's matchers mean: patterns are Prometheus' own, RE2's, and hold for the whole value."""

from __future__ import annotations

import pytest

from virtflow.history.remote_read.protocol.counted import ProtocolError
from virtflow.history.remote_read.protocol.wire import Match, Matcher
from virtflow.history.remote_read.reading.labels import matching


@pytest.mark.parametrize(
    ("pattern", "value", "found"),
    [
        ("vm-.+", "vm-1", True),
        ("vm", "vm-1", False),
        ("a|ab", "ab", True),
        ("a|b", "ab", False),
        ("", "", True),
        (".*", "two\nlines", True),
        ("x", "x\n", False),
        ("(?i)web", "WEB", True),
        ("(a+)+b", "a" * 200, False),  # what tries every way would never end here
    ],
)
def test_a_pattern_holds_for_the_whole_value(pattern: str, value: str, *, found: bool) -> None:
    assert matching([Matcher(Match.REGEX, "name", pattern)])("name", value) is found
    assert matching([Matcher(Match.NOT_REGEX, "name", pattern)])("name", value) is not found


@pytest.mark.parametrize("pattern", ["(", "(?=x)x", r"(x)\1", "[z-a]"])
def test_a_pattern_that_prometheus_would_refuse_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(ProtocolError, match="the pattern"):
        matching([Matcher(Match.REGEX, "name", pattern)])("name", "x")
