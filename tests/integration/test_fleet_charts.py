"""The last hour on a VM's page in a real browser: axes, the value under the cursor, zoom, gaps, and points that come while one looks."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.support import served_exporter
from tests.support.browser import Visit, became, chromium, visit
from tests.support.charts import ChartShown
from tests.support.fleet_samples import HOSTILE, busy, lasting
from tests.support.processors import eventually
from tests.support.served_exporter import settings_of
from tests.support.vm_samples import INTERVAL, WALL, uuid
from virtflow.exporter.clocks import Clocks
from virtflow.exporter.page.formats import clock, shown
from virtflow.exporter.page.vm_page import CHARTS
from virtflow.exporter.service import Exporter

VM: Final = 3
PAGE: Final = f"/vms/{uuid(VM)}"
NARROW: Final[ViewportSize] = {"width": 360, "height": 740}
BROAD: Final[ViewportSize] = {"width": 1000, "height": 900}
LIGHT, DARK = "#2f7dd1", "#5aa2ee"
"""The colour of lines in both schemes."""
GAP: Final = 6
"""Minutes of which nothing is known, in the middle of what is."""


class Served:
    """An exporter whose clock jumps from minute to minute, and what its VM has done."""

    def __init__(self) -> None:
        """Not yet served."""
        self._begun, self._ahead = time.monotonic(), 0.0
        self.exporter = Exporter(settings_of(request_timeout_seconds=120.0), Clocks(self._now, lambda: WALL + self._now() - self._begun))
        self.url = ""
        self._round = 0
        self._used = 0.0
        self._take()

    def _now(self) -> float:
        return time.monotonic() + self._ahead

    def _take(self, cores: float = 0.0) -> None:
        self._used += cores * INTERVAL
        self.exporter.take(lasting([busy(VM, self._round, name=HOSTILE, cpu_seconds_total=self._used)]))
        self._round += 1

    def minute(self, cores: float, jump: int = 1) -> None:
        """A point of the hour in which the VM has used so many cores, so many minutes after the one before."""
        end = self.vm()["hour_end"]
        self._take(cores)
        collected = WALL + (self._round - 1) * INTERVAL
        eventually("the sample is taken", lambda: self.vm()["collected"] == collected)
        self._jump(end, jump)

    def early(self) -> None:
        """Jumps to the next minute where this one is far gone, so that none begins by itself while a test looks."""
        if self._now() % 60.0 > 20.0:
            self._jump(self.vm()["hour_end"], 1)

    def _jump(self, end: float, minutes: int) -> None:
        self._ahead += minutes * 60.0 - self._now() % 60.0 + 5.0
        eventually("the point is there", lambda: self._has_point(end + minutes * 60.0))

    def _has_point(self, end: float) -> bool:
        vm = self.vm()
        return bool(abs(vm["hour_end"] - end) <= 2.0 and vm["hour"]["cpu_cores"] and vm["hour"]["cpu_cores"][-1] is not None)

    def vm(self) -> dict[str, Any]:
        """What the API tells."""
        with urllib.request.urlopen(f"{self.url}/api/v1{PAGE}", timeout=60) as reply:  # noqa: S310, our own
            found: dict[str, Any] = json.load(reply)
            return found


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Three points, a gap, and two points."""
    found = Served()
    with served_exporter.served(found.exporter) as found.url:
        eventually("the VM is there", lambda: b"collected" in json.dumps(found.vm()).encode())
        for cores, jump in ((0.5, 1), (1.5, 1), (1.0, 1), (0.75, GAP + 1), (0.25, 1)):
            found.minute(cores, jump)
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def drawn(visited: Visit, served: Served) -> Page:
    """The VM's page with all its charts."""
    served.early()
    page = visited.lively(PAGE)
    expect(page.locator(".charts canvas")).to_have_count(len(CHARTS))
    return page


def chart_of(page: Page, title: str = "CPU cores") -> ChartShown:
    return ChartShown(page, ".charts", title)


def readings(vm: dict[str, Any], column: str, form: str) -> list[tuple[float, str]]:
    """What is read at each point, by its part of the chart's width."""
    values = vm["hour"][column]
    times = [vm["hour_end"] - 60 * (len(values) - 1 - place) for place in range(len(values))]
    return [
        (place / (len(values) - 1), f"{clock(at)} UTC · {shown(form, value)}")
        for place, (at, value) in enumerate(zip(times, values, strict=True))
    ]


def test_the_cursor_reads_the_values_of_the_api(browser: Browser, served: Served) -> None:
    """Of every point, known or not, with its time and zone; in the other charts at the same time. Nothing is refused by the page's policy."""
    with visit(browser, served.url) as visited:
        page = drawn(visited, served)
        chart, memory = chart_of(page), chart_of(page, "Memory in use")
        vm = served.vm()
        values = vm["hour"]["cpu_cores"]
        assert [round(value, 3) if value is not None else None for value in values[-GAP - 5 :]] == [
            0.5,
            1.5,
            1.0,
            *[None] * GAP,
            0.75,
            0.25,
        ]
        expected = zip(readings(vm, "cpu_cores", "cores"), readings(vm, "memory_used", "size"), strict=True)
        for (part, text), (_, other) in list(expected)[-GAP - 6 :]:
            same_but_seconds(chart.point(part), text)
            same_but_seconds(memory.under.inner_text(), other)
        page.mouse.move(1, 1)
        expect(chart.under).to_be_hidden()


def same_but_seconds(found: str, wanted: str) -> None:
    """The end of the hour is told in whole seconds, of which the page's last answer and ours may differ by one."""
    seconds = re.compile(r":\d\d UTC")
    assert seconds.sub(" UTC", found) == seconds.sub(" UTC", wanted)


def test_a_gap_stays_a_gap(browser: Browser, served: Served) -> None:
    with visit(browser, served.url) as visited:
        chart = chart_of(drawn(visited, served))
        values = served.vm()["hour"]["cpu_cores"]
        first = next(place for place in range(len(values) - 1, 0, -1) if values[place] is None) - GAP + 1
        one = 1 / (len(values) - 1)
        assert values[first - 1] is not None
        assert chart.pixels(LIGHT, (first - 0.5) * one, (first + GAP - 0.5) * one) == 0
        assert chart.pixels(LIGHT, (first - 3) * one, (first - 1) * one) > 10
        assert chart.pixels(LIGHT, (first + GAP) * one, 1.0) > 10


def test_a_point_comes_while_one_looks(browser: Browser, served: Served) -> None:
    """Without a load; the description for screen readers is that of the newest value. What has been zoomed stays."""
    with visit(browser, served.url) as visited:
        page = drawn(visited, served)
        chart = chart_of(page)
        canvas = chart.place.locator("canvas").element_handle()
        served.minute(1.75)
        expect(chart.place).to_have_attribute("aria-label", re.compile(r"^CPU cores: now 1\.75, at most 1\.75 "))
        same_but_seconds(chart.point(1.0), readings(served.vm(), "cpu_cores", "cores")[-1][1])
        chart.drag(0.6, 0.9)
        whole = page.get_by_role("button", name="Whole range")
        expect(whole).to_be_visible()
        begins = chart.point(0.0)
        served.minute(2.0)
        expect(chart.place).to_have_attribute("aria-label", re.compile("now 2, "))
        expect(whole).to_be_visible()
        assert chart.point(0.0) == begins
        assert page.evaluate("canvas => canvas.isConnected", canvas)


def test_dragging_zooms_all_charts_of_the_hour(browser: Browser, served: Served) -> None:
    """A button, a double-click and Escape show all again."""
    with visit(browser, served.url) as visited:
        page = drawn(visited, served)
        chart, other = chart_of(page), chart_of(page, "Sent")
        begins, whole = chart.point(0.0), page.get_by_role("button", name="Whole range")
        expect(whole).to_be_hidden()
        ways: tuple[Callable[[], None], ...] = (
            whole.click,
            lambda: page.mouse.dblclick(*chart.at(0.5)),
            lambda: chart.place.press("Escape"),
        )
        for back in ways:
            chart.drag(0.5, 0.75)
            expect(whole).to_be_visible()
            zoomed = other.point(0.0)
            assert zoomed.split(" UTC")[0] > begins.split(" UTC")[0]
            assert chart.point(0.0).split(" UTC")[0] == zoomed.split(" UTC")[0]
            back()
            expect(whole).to_be_hidden()
            assert chart.point(0.0) == begins


def test_charts_are_read_by_keyboard(browser: Browser, served: Served) -> None:
    """A chart is one step of Tab; arrows go from point to point and are read out, + zooms, Escape ends it."""
    with visit(browser, served.url) as visited:
        page = drawn(visited, served)
        chart, other = chart_of(page), chart_of(page, "Steal, cores")
        texts = [text for _, text in readings(served.vm(), "cpu_cores", "cores")]
        chart.place.focus()
        page.keyboard.press("End")
        same_but_seconds(chart.under.inner_text(), texts[-1])
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        same_but_seconds(chart.under.inner_text(), texts[-3])
        page.keyboard.press("ArrowRight")
        same_but_seconds(chart.under.inner_text(), texts[-2])
        expect(chart.under).to_have_attribute("aria-live", "polite")
        page.keyboard.press("+")
        expect(page.get_by_role("button", name="Whole range")).to_be_visible()
        page.keyboard.press("Home")
        assert chart.under.inner_text().split(" UTC")[0] > texts[0].split(" UTC")[0]
        page.keyboard.press("Escape")
        expect(chart.under).to_be_hidden()
        expect(page.get_by_role("button", name="Whole range")).to_be_hidden()
        page.keyboard.press("Tab")
        expect(other.place).to_be_focused()
        expect(chart.under).to_have_attribute("aria-live", "off")


def test_colours_follow_the_scheme(browser: Browser, served: Served) -> None:
    """Also where the system changes it while one looks."""
    with visit(browser, served.url, color_scheme="dark") as visited:
        page = drawn(visited, served)
        chart = chart_of(page)
        assert (chart.pixels(DARK) > 20, chart.pixels(LIGHT)) == (True, 0)
        page.emulate_media(color_scheme="light")
        became(page, "matchMedia('(prefers-color-scheme: light)').matches")
        assert (chart.pixels(LIGHT) > 20, chart.pixels(DARK)) == (True, 0)


def test_charts_fit_a_narrow_phone(browser: Browser, served: Served) -> None:
    """At 360 pixels, and where a wide window becomes that narrow."""
    with visit(browser, served.url) as visited:
        page = drawn(visited, served)
        for viewport in (BROAD, NARROW):
            page.set_viewport_size(viewport)
            became(
                page,
                "[...document.querySelectorAll('.axes')].every(place => {"
                " const canvas = place.querySelector('canvas').getBoundingClientRect(), box = place.getBoundingClientRect();"
                " return box.width > 200 && Math.abs(canvas.width - box.width) < 1.5; })",
            )
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            chart = chart_of(page)
            same_but_seconds(chart.point(1.0), readings(served.vm(), "cpu_cores", "cores")[-1][1])
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("scheme", "viewport"), [("light", BROAD), ("dark", NARROW)], ids=["light and wide", "dark and narrow"])
def test_axe_finds_no_violation(browser: Browser, served: Served, scheme: str, viewport: ViewportSize) -> None:
    """With a value read and the range zoomed, so that all that a chart may show is there."""
    with visit(browser, served.url, color_scheme=scheme, viewport=viewport) as visited:
        page = drawn(visited, served)
        chart = chart_of(page)
        chart.drag(0.5, 0.9)
        chart.point(0.5)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_without_scripts_the_pictures_stay(browser: Browser, served: Served) -> None:
    with visit(browser, served.url, java_script_enabled=False) as visited:
        page = visited.go(PAGE)
        expect(page.locator(".charts svg.spark")).to_have_count(len(CHARTS))
        expect(page.get_by_role("img", name=re.compile("^CPU cores: now "))).to_have_attribute("viewBox", "0 0 240 40")


def test_without_the_library_the_pictures_stay_current(browser: Browser, served: Served) -> None:
    with visit(browser, served.url) as visited:
        visited.page.route("**/vendor/*", lambda route: route.abort())
        page = visited.lively(PAGE)
        served.minute(0.125)
        expect(page.locator("svg.spark[data-label='CPU cores']")).to_have_attribute("aria-label", re.compile(r"now 0\.13, "))
        expect(page.locator(".charts svg.spark")).to_have_count(len(CHARTS))
        assert visited.wrong
        assert all("ERR_FAILED" in text for text in visited.wrong)
        visited.wrong.clear()
