"""What a scrape shows: every series once, found by name and labels; and a watcher that scrapes all the time."""

from __future__ import annotations

import itertools
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from prometheus_client.parser import text_string_to_metric_families

from tests.support.prometheus import Prometheus
from tests.support.watching import Watching

Series = tuple[str, frozenset[tuple[str, str]]]
"""A metric's name and its labels."""

SCRAPE_SECONDS = 5.0
AWAIT_SECONDS = 60.0


class DuplicateSeriesError(AssertionError):
    """A series stood twice in one scrape."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of /metrics, and when it was asked for (Unix seconds)."""

    time: float
    text: str
    series: dict[Series, float]

    def of_vm(self, uuid: str) -> dict[Series, float]:
        """The series of one VM, without its uuid and name labels."""
        mine = ("uuid", uuid)
        return {
            (name, frozenset(pair for pair in labels if pair[0] not in {"uuid", "name"})): value
            for (name, labels), value in self.series.items()
            if mine in labels
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The value of the one series with these labels among its own; None when there is none."""
        wanted = frozenset(labels.items())
        found = [value for (other, own), value in self.series.items() if other == name and wanted <= own]
        assert len(found) < 2, f"{name}{labels} is not one series"
        return found[0] if found else None

    def uuids(self) -> set[str]:
        """The VMs that are shown."""
        return {value for _, labels in self.series for label, value in labels if label == "uuid"}


def parse(text: str, when: float) -> Scrape:
    """Read an exposition; DuplicateSeriesError when a series stands twice."""
    series: dict[Series, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            if key in series:
                raise DuplicateSeriesError(f"{sample.name}{sample.labels}")
            series[key] = sample.value
    return Scrape(when, text, series)


def stored(prometheus: Prometheus, uuid: str) -> Scrape:
    """What Prometheus holds of one VM now, as the scrape it comes from; rules' results left out. Empty at time 0 before the first one."""
    now = time.time()
    selector = f'{{uuid="{uuid}",job!=""}}'

    def scraped() -> float:
        found = prometheus.query(f"timestamp(vm_sample_age_seconds{selector})", now)
        return found[0].value if found else 0.0

    # A scrape that began before now may be stored between two queries at now: then values and time are not of the same one.
    when, samples = scraped(), prometheus.query(selector, now)
    while (again := scraped()) != when:
        when, samples = again, prometheus.query(selector, now)
    series: dict[Series, float] = {}
    for sample in samples:
        name = sample.labels.pop("__name__")
        if name.startswith("vm_"):
            key = (name, frozenset(pair for pair in sample.labels.items() if pair[0] not in {"job", "instance"}))
            series[key] = sample.value
    return Scrape(when, "", series)


def fetch(url: str) -> str:
    """The body at ``url``; OSError when nobody answers with 200."""
    with urllib.request.urlopen(url, timeout=SCRAPE_SECONDS) as answer:  # noqa: S310, a loopback address of the test's own
        body: bytes = answer.read()
    return body.decode()


def scrape(address: str) -> Scrape:
    """Scrape ``address`` (HOST:PORT) now; OSError when nobody answers."""
    when = time.time()
    return parse(fetch(f"http://{address}/metrics"), when)


def try_scrape(address: str) -> Scrape | None:
    """Scrape ``address``, None when nobody answers."""
    try:
        return scrape(address)
    except OSError:
        return None


@dataclass
class Watch(Watching):
    """Scrapes an address about five times a second in the background, and keeps what it saw.

    An answer with a series twice ends the watch, and leaving it raises.
    """

    pause_seconds: ClassVar[float] = 0.2

    address: str
    scrapes: list[Scrape] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    """When nobody answered."""

    def look(self) -> None:
        """Scrape once."""
        when = time.time()
        try:
            self.scrapes.append(scrape(self.address))
        except OSError:
            self.failures.append(when)

    def await_scrapes(self, count: int) -> None:
        """Wait for so many more scrapes."""
        enough = len(self.scrapes) + count
        self.await_seen(lambda: len(self.scrapes) >= enough, AWAIT_SECONDS, f"{self.address} answers {count} scrapes")

    def values(self, name: str, **labels: str) -> Iterator[tuple[float, float]]:
        """Time and value of one series in every scrape that shows it."""
        for one in list(self.scrapes):
            value = one.value(name, **labels)
            if value is not None:
                yield one.time, value

    def longest_gap(self, name: str, **labels: str) -> float:
        """Longest time in seconds without the series, from the first scrape that showed it to the last scrape of all."""
        times = [when for when, _ in self.values(name, **labels)]
        assert times, f"{name}{labels} was never shown"
        ends = [*times, self.scrapes[-1].time]
        return max(later - earlier for earlier, later in itertools.pairwise(ends))

    def drops(self, name: str, **labels: str) -> int:
        """How often the series fell from one scrape to the next."""
        values = [value for _, value in self.values(name, **labels)]
        return sum(later < earlier for earlier, later in itertools.pairwise(values))
