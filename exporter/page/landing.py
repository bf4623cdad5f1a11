"""The page about this exporter: its state, its topics, and links. Without scripts; at ``/about``, and at ``/`` where the fleet page is off."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from string import Template
from typing import Final

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400

_SECTIONS: Final = '<nav aria-label="Sections"><a href="/">Overview</a></nav>'
_API: Final = """<li><a href="/api/v1/fleet">/api/v1</a>: the fleet for programs; <a href="/api/v1/openapi.json">its OpenAPI document</a></li>
"""


@dataclass(frozen=True, slots=True)
class TopicLag:
    """Lag of a topic: age in seconds of the newest record taken, and the number of records still to be read."""

    topic: str
    seconds: float
    messages: int


@dataclass(frozen=True, slots=True)
class Status:
    """Content of the page. ``missing`` is why the exporter is not ready, "" when it is; ``fleet_page`` whether that is served."""

    version: str
    missing: str
    vms: int
    nodes: int
    down: int
    series: int
    scrapes: int
    uptime_seconds: float
    groups: Sequence[str]
    lags: Sequence[TopicLag]
    fleet_page: bool = False


def page(status: Status) -> str:
    """The page as HTML."""
    groups = " ".join(f'<a href="/metrics?collect[]={escape(group)}">{escape(group)}</a>' for group in status.groups)
    return _template().substitute(
        tone="bad" if status.missing else "good",
        state=_marked(f"Not ready: {status.missing}." if status.missing else "Ready."),
        vms=_thousands(status.vms),
        nodes=_thousands(status.nodes),
        down=_thousands(status.down),
        down_tone="bad" if status.down else "",
        series=_thousands(status.series),
        scrapes=_thousands(status.scrapes),
        topics=_topics(status.lags),
        groups=groups,
        version=escape(status.version),
        uptime=duration(status.uptime_seconds),
        sections=_SECTIONS if status.fleet_page else "",
        api=_API if status.fleet_page else "",
    )


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = int(seconds)
    for unit, name, smaller, smaller_name in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min"), (_MINUTE, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {smaller_name}"
    return f"{whole} s"


def _marked(words: str) -> str:
    """Text as HTML; parts in backticks become code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(words))


def _age(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < _MINUTE else duration(seconds)


def _thousands(number: int) -> str:
    """Digits in groups of three, kept together by narrow no-break spaces."""
    return f"{number:,}".replace(",", "\u202f")


def _topics(lags: Sequence[TopicLag]) -> str:
    if not lags:
        return ""
    rows = "".join(
        f'<tr><td><code>{escape(lag.topic)}</code></td><td class="number">{_age(lag.seconds)}</td>'
        f'<td class="number">{_thousands(lag.messages)}</td></tr>'
        for lag in lags
    )
    return (
        '<h2>Topics</h2><table class="topics"><tr><th>topic</th><th class="number">age of the newest when it came</th>'
        f'<th class="number">waiting</th></tr>{rows}</table>'
    )


@cache
def _template() -> Template:
    return Template(resources.files("virtflow.exporter.page").joinpath("landing.html").read_text("utf-8"))
