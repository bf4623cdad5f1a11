"""Label selectors as the API server reads them."""

from __future__ import annotations

import pytest

from virtflow.adapter.selectors import SelectorError, selector_of

LABELS = {"app": "web", "tier": "", "example.com/zone": "a-1", "size": "12"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("  ", True),
        ("app", True),
        ("db", False),
        ("!db", True),
        ("! app", False),
        ("app=web", True),
        ("app==web", True),
        ("app=db", False),
        ("app = web , tier=", True),
        ("tier", True),
        ("tier=,app=web", True),
        ("missing=", False),
        ("app!=db", True),
        ("app!=web", False),
        ("missing!=web", True),
        ("app in (web,db)", True),
        ("app in(db)", False),
        ("missing in (web)", False),
        ("tier in (,x)", True),
        ("app notin (db, cache)", True),
        ("app notin (web)", False),
        ("missing notin (web)", True),
        ("example.com/zone=a-1", True),
        ("size>11,size<13", True),
        ("size>12", False),
        ("app>1", False),
        ("missing<1", False),
        ("app=web,db", False),
        ("app in (web,db),app!=db,!db,tier", True),
    ],
)
def test_matches(text: str, *, matches: bool) -> None:
    assert selector_of(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "a,",
        "a,,b",
        "=b",
        "a=b=c",
        "a in",
        "a in b",
        "a in (b",
        "a in ()",
        "a in (b c)",
        "a b",
        "a>x",
        "a>",
        "!",
        "!a=b",
        "-a",
        "a/b/c",
        "/a",
        "a=/",
        "a=-b",
        "a=" + "x" * 64,
        "x" * 64,
        "a)b",
        "a=b c",
    ],
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    """Not ignored: an answer for other objects than were asked for would scale wrongly."""
    with pytest.raises(SelectorError, match="unable to parse"):
        selector_of(text)
