"""The page for people: says what is there, loads nothing, trusts nobody."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from virtflow.exporter.page.landing import Status, TopicLag, duration, page

STATUS = Status(
    version="0.1.0",
    missing="",
    vms=12_345,
    nodes=40,
    down=2,
    series=740_700,
    scrapes=7,
    uptime_seconds=93_784.0,
    groups=("core", "guest"),
    lags=(TopicLag("vm.metrics", 0.25, 3),),
)


def test_says_what_is_there() -> None:
    html = page(STATUS)
    for text in (
        "0.1.0",
        "12\u202f345",
        ">40<",
        "740\u202f700",
        "Ready.",
        "vm.metrics",
        "0.2 s",
        "1 d 2 h",
        "/metrics?collect[]=guest",
        "/readyz",
    ):
        assert text in html, text
    assert "$" not in html


def test_is_self_contained() -> None:
    """No script, and no style sheet, picture or font from elsewhere; nothing inline that the policy would forbid."""
    assert not re.search(r"<script|<style|style=|<img|url\(|https?://", page(STATUS))
    assert set(re.findall(r'<link[^>]* href="([^"]*)"', page(STATUS))) == {"/static/fleet.css", "/static/icon.svg"}


def test_the_fleet_page_and_the_api_are_linked_where_they_are() -> None:
    assert "/api/v1" not in page(STATUS)
    assert "/api/v1/openapi.json" in page(replace(STATUS, fleet_page=True))


def test_what_is_missing_is_said_and_escaped() -> None:
    html = page(replace(STATUS, missing="no <b>broker</b>", lags=()))
    assert "Not ready: no &lt;b&gt;broker&lt;/b&gt;." in html
    assert "<h2>Topics" not in html


def test_commands_are_told_from_words() -> None:
    html = page(replace(STATUS, missing="topics missing: vm.<x>; `virtflow topics create` makes them"))
    assert "vm.&lt;x&gt;; <code>virtflow topics create</code> makes them." in html


@pytest.mark.parametrize(("down", "marked"), [(0, '<b class="">0</b>'), (2, '<b class="bad">2</b>')])
def test_nodes_that_are_down_catch_the_eye(down: int, marked: str) -> None:
    assert marked in page(replace(STATUS, down=down))


def test_old_records_are_aged_as_people_say_it() -> None:
    assert ">5 min 41 s<" in page(replace(STATUS, lags=(TopicLag("vm.migrations", 341.2, 0),)))


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (61.0, "1 min 1 s"), (7_260.0, "2 h 1 min"), (200_000.0, "2 d 7 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
