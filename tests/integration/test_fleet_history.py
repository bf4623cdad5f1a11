"""Days to years of a VM on the fleet page: a real `history serve`, an exporter that asks it, and a real browser that shows what it says."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from msgspec.structs import replace
from playwright.sync_api import Browser, Page, expect

from tests.support.broker import free_ports
from tests.support.browser import PHONE, WIDE, chromium, served, visit
from tests.support.charts import ChartShown
from tests.support.fleet_samples import HOSTILE, busy, described, lasting, migration
from tests.support.history_serving import serving
from tests.support.history_tenants import INTERVAL, MOVED_AT, write_tenants
from tests.support.history_years import DAY, HOUR, hours_of_vm, vm_uuid, write_years
from virtflow.exporter.details.charts import COLUMNS, NOTHING
from virtflow.exporter.long_history.curves import CURVES, promql
from virtflow.exporter.long_history.periods import BY_NAME, SPANS, of_span
from virtflow.exporter.page.formats import clock, shown

IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"
NOW: Final = int(time.time())
FIRST: Final = (NOW // DAY - 80) * DAY
GAP: Final = (FIRST + 30 * DAY, FIRST + 45 * DAY)
HOURLY_DAYS: Final = 8
UUID: Final = vm_uuid(1)
HOURS: Final = hours_of_vm(1, FIRST, NOW // HOUR * HOUR, gap=GAP)
MOVED: Final = NOW - 5 * DAY
LINE, MARK = "#2f7dd1", "#7a4300"
"""Their colours."""
SECONDS: Final = 300.0
"""How long a history may take on a machine that has much else to do."""
WAITS: Final[dict[str, Any]] = {"request_timeout_seconds": 600.0, "history_timeout_seconds": 300.0}


class Served(NamedTuple):
    """An exporter's address, and the history's."""

    url: str
    history: str


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Eighty days of one VM with a gap; each is a file, and of the last ones each has one of hours, too."""
    path = tmp_path_factory.mktemp("history")
    write_years(path / "tables", {1: HOURS}, hours_since=NOW // DAY * DAY - HOURLY_DAYS * DAY)
    with serving(path / "tables", path, {"VIRTFLOW_HISTORY_HOURLY_DAYS": str(HOURLY_DAYS)}) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def fleet(history: str) -> Iterator[Served]:
    with served(history_url=history, grafana_url="https://grafana.example", **WAITS) as (exporter, url):
        moved = migration(1, "completed", uuid=UUID, destination=HOSTILE, started_timestamp_seconds=float(MOVED))
        sample = busy(1, 0, uuid=UUID, name=HOSTILE)
        exporter.take(lasting([described(1, uuid=UUID, name=HOSTILE), sample, moved]))
        yield Served(url, history)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def asked(url: str, **given: Any) -> dict[str, Any]:  # noqa: ANN401, parameters
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(given)}", timeout=SECONDS) as reply:  # noqa: S310, our own
        found: dict[str, Any] = json.load(reply)
        return found


def text_of(url: str) -> tuple[int, str]:
    """Status and text, without an event loop: Playwright has its own in this thread."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as reply:  # noqa: S310, our own
            return int(reply.status), reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def of_the_api(fleet: Served, metric: str, span: str = "year") -> dict[str, Any]:
    """A curve as the API tells it."""
    period = of_span(BY_NAME[span], NOW)
    given = {"metric": metric, "from": period.start, "to": period.end, "step": period.step}
    return asked(f"{fleet.url}/api/v1/vms/{UUID}/history", **given)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_the_api_has_the_values_of_the_history(fleet: Served, curve: Any) -> None:  # noqa: ANN401, a curve
    """The same numbers at the same times as the history's own answer; where that has none, null."""
    found = of_the_api(fleet, curve.name)
    step = found["step_seconds"]
    query = promql(curve.expression, UUID, max(step, 4 * HOUR))
    answer = asked(f"{fleet.history}/api/v1/query_range", query=query, start=found["times"][0], end=found["times"][-1], step=step)
    series = answer["data"]["result"]
    told = {int(at): float(value) for at, value in series[0]["values"]} if series else {}
    assert dict(zip(found["times"], found["values"], strict=True)) == {at: told.get(at) for at in found["times"]}
    assert bool(told) is (curve.name in {"cpu_cores", "memory_used"}), "what the tables hold"


def test_the_values_are_the_truth(fleet: Served) -> None:
    """Two days' mean of what the VM did in their hours, to a hundredth; nothing in the gap and before the beginning."""
    found = of_the_api(fleet, "cpu_cores")
    by_hour = {hour.start: hour.cpu_seconds / HOUR for hour in HOURS}
    seen = 0
    for at, value in zip(found["times"], found["values"], strict=True):
        hours = [by_hour.get(start) for start in range(at - 2 * DAY, at, HOUR)]
        known = [one for one in hours if one is not None]
        if len(known) == len(hours):
            assert value == pytest.approx(sum(known) / len(known), rel=0.01)
            seen += 1
        elif not known:
            assert value is None, at
    assert seen > 20


def test_all_begins_where_the_history_begins(fleet: Served) -> None:
    text = text_of(f"{fleet.url}/vms/{UUID}/history?range=all")[1]
    first = re.search(r"<tbody><tr[^>]*><td><time>([\d-]+)", text)
    assert first
    assert abs(time.mktime(time.strptime(first[1], "%Y-%m-%d")) - FIRST) < 4 * DAY


def drawn(page: Page) -> None:
    """Waits for all charts."""
    expect(page.locator("#long-history figure")).to_have_count(len(CURVES), timeout=SECONDS * 1000)


def cells(page: Page) -> list[list[str]]:
    rows: list[list[str]] = page.eval_on_selector_all(
        "#long-history tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


def test_a_range_is_chosen_by_keyboard_and_kept_in_the_address(browser: Browser, fleet: Served) -> None:
    """Charts come into the page without a load of it; their values are the API's; the address shows them again."""
    with visit(browser, fleet.url) as visited:
        page = visited.lively(f"/vms/{UUID}")
        expect(page.locator("#long-history figure")).to_have_count(0)
        page.evaluate("window.same = true")
        page.get_by_role("navigation", name="Range of the history").get_by_role("link", name="1 week").focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="1 year")).to_be_focused()
        page.keyboard.press("Enter")
        drawn(page)
        expect(page).to_have_url(re.compile(r"\?range=year$"))
        expect(page.get_by_role("link", name="1 year")).to_have_attribute("aria-current", "true")
        expect(page.get_by_role("link", name="1 year")).to_be_focused()
        assert page.evaluate("window.same") is True
        wanted = {curve.name: of_the_api(fleet, curve.name) for curve in CURVES}
        times = wanted["cpu_cores"]["times"]
        rows = [{"time": at, **{name: one["values"][place] for name, one in wanted.items()}} for place, at in enumerate(times)]
        known = [row for row in rows if any(row[curve.name] is not None for curve in CURVES)]
        assert cells(page) == [[shown(column.format, row[column.field]) for column in COLUMNS] for row in known]
        page.reload()
        drawn(page)
        page.go_back()
        expect(page.locator("#long-history figure")).to_have_count(0)


def test_charts_read_the_values_of_the_api_with_gaps_and_a_migration(browser: Browser, fleet: Served) -> None:
    """Under the cursor are the API's values, a dash in the gap, where nothing is drawn; the migration is marked, and named where it was."""
    with visit(browser, fleet.url) as visited:
        page = visited.lively(f"/vms/{UUID}?range=year")
        for title, name, form in (("CPU cores", "cpu_cores", "cores"), ("Memory in use", "memory_used", "size")):
            chart, told = ChartShown(page, "#long-history", title), of_the_api(fleet, name)
            times, values = told["times"], told["values"]
            parts = [place / (len(times) - 1) for place in range(len(times))]
            for part, at, value in list(zip(parts, times, values, strict=True))[:: len(times) // 40]:
                assert chart.point(part).startswith(f"{clock(at)} UTC · {shown(form, value)}")
            gap = [part for part, at in zip(parts, times, strict=True) if GAP[0] + 2 * DAY < at < GAP[1]]
            known = [part for part, value in zip(parts, values, strict=True) if value is not None]
            assert chart.pixels(LINE, gap[0], gap[-1]) == 0
            assert min(chart.pixels(LINE, known[0], gap[0]), chart.pixels(LINE, gap[-1], known[-1])) > 20
            moved = next(part for part, at in zip(parts, times, strict=True) if at >= MOVED)
            assert HOSTILE in chart.point(moved)
            assert chart.pixels(MARK) > 20
        expect(page.locator("#long-history .marks li")).to_contain_text(HOSTILE)
        page.get_by_role("link", name="1 day").click()
        expect(page.get_by_text(NOTHING)).to_be_visible()
        expect(page.locator("#long-history canvas")).to_have_count(0)


def test_a_range_is_zoomed_and_another_one_is_whole(browser: Browser, fleet: Served) -> None:
    """On the page of its own, which is complete without scripts, as well."""
    with visit(browser, fleet.url) as visited:
        for address in (f"/vms/{UUID}?range=year", f"/vms/{UUID}/history?range=year"):
            page = visited.lively(address)
            chart = ChartShown(page, "#long-history", "CPU cores")
            begins = chart.point(0.0)
            chart.drag(0.8, 0.95)
            whole = page.locator("#long-history").get_by_role("button", name="Whole range")
            expect(whole).to_be_visible()
            assert chart.point(0.0)[:10] > begins[:10]
            whole.click()
            assert chart.point(0.0) == begins
            chart.drag(0.8, 0.95)
            page.get_by_role("link", name="1 month").click()
            expect(page.get_by_role("link", name="1 month")).to_have_attribute("aria-current", "true")
            chart = ChartShown(page, "#long-history", "CPU cores")
            expect(page.locator("#long-history .whole-range")).to_have_count(1)
            expect(whole).to_be_hidden()


def test_without_scripts_a_range_leads_to_its_page(browser: Browser, fleet: Served) -> None:
    with visit(browser, fleet.url, java_script_enabled=False) as visited:
        page = visited.go(f"/vms/{UUID}?range=year")
        page.get_by_role("link", name="Show the charts").click()
        expect(page.locator("figure svg.chart")).to_have_count(len(CURVES))
        page.get_by_text("All values").click()
        expect(page.get_by_role("table", name="Values of the history").locator("tbody tr").first).to_be_visible()
        page.get_by_role("link", name="1 month").click()
        expect(page).to_have_url(re.compile(r"/history\?range=month$"))
        page.get_by_role("heading", level=1).get_by_role("link").click()
        expect(page.locator("h1 bdi")).to_have_text(HOSTILE)


@pytest.mark.parametrize(("scheme", "viewport"), [("light", WIDE), ("dark", PHONE)], ids=["light and wide", "dark and small"])
def test_axe_finds_no_violation(browser: Browser, fleet: Served, scheme: str, viewport: dict[str, int]) -> None:
    """In the page and on its own, with the values open; nothing is wider than the screen; hostile names run nothing."""
    dialogs: list[str] = []
    with visit(browser, fleet.url, color_scheme=scheme, viewport=viewport) as visited:
        visited.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        for address in (f"/vms/{UUID}?range=year", f"/vms/{UUID}/history?range=month"):
            page = visited.lively(address)
            drawn(page)
            expect(page.locator("#long-history canvas")).to_have_count(len(CURVES))
            page.get_by_text("All values").click()
            found = Axe().run(page)
            assert found.violations_count == 0, f"{address}: {found.generate_report()}"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
    assert dialogs == []


def test_a_history_that_is_away_is_one_line(browser: Browser) -> None:
    """The rest of the page is whole and live."""
    (port,) = free_ports(1)
    with served(history_url=f"http://127.0.0.1:{port}") as (exporter, url), visit(browser, url) as visited:
        exporter.take(lasting([busy(1, 0)]))
        page = visited.lively("/vms")
        page.get_by_role("link", name="vm-00001").click()
        page.get_by_role("link", name="1 day").click()
        expect(page.locator("#long-history .missing")).to_contain_text("can't be asked")
        expect(page.get_by_role("table", name="Disks")).to_be_visible()
        expect(page.locator("#live")).to_have_text("Live")


def test_a_vm_shows_the_time_in_which_it_was_its_projects(tmp_path: Path) -> None:
    """A history with tenants is told the VM's project; what the VM did before, for another one, is not shown."""
    start = float(int(time.time()) // HOUR * HOUR - 3 * HOUR)
    samples, inventories = write_tenants(tmp_path / "history", start)
    owner = inventories[-1]
    assert owner.uuid == inventories[0].uuid
    path = f"/api/v1/vms/{owner.uuid}/history?metric=cpu_cores&from={int(start)}&to={int(start + 2 * HOUR)}&step=60"
    with serving(tmp_path / "history", tmp_path, {"VIRTFLOW_HISTORY_TENANT_HEADER": "X-Project"}) as server:
        answers = []
        for settings in ({"history_tenant_header": "X-Project"}, {}):
            with served(history_url=f"http://127.0.0.1:{server.port}", **settings, **WAITS) as (exporter, mine):
                exporter.take(lasting([owner, replace(samples[0], interval=INTERVAL)]))
                answers.append(text_of(f"{mine}{path}"))
    (code, body), (refused, why) = answers
    assert (code, refused) == (200, 502)
    assert "refuses: 401 name one project: the header X-Project" in why
    found = json.loads(body)
    known = [at for at, value in zip(found["times"], found["values"], strict=True) if value is not None]
    assert len(known) > 30
    assert min(known) > start + MOVED_AT * INTERVAL


def test_a_picture_for_the_documentation(browser: Browser, fleet: Served, tmp_path: Path) -> None:
    """Taken always; with VIRTFLOW_PICTURES=1 into docs/images."""
    folder = IMAGES if os.environ.get("VIRTFLOW_PICTURES") else tmp_path
    with visit(browser, fleet.url) as visited:
        page = visited.lively(f"/vms/{UUID}?range=year")
        drawn(page)
        chart = ChartShown(page, "#long-history", "CPU cores")
        for key in ("End", "ArrowLeft", "ArrowLeft"):
            chart.place.press(key)
        assert HOSTILE in chart.under.inner_text()
        page.locator("#long-history").screenshot(path=folder / "fleet-history.png")
    assert (folder / "fleet-history.png").read_bytes().startswith(b"\x89PNG")
    assert (IMAGES / "fleet-history.png").exists(), "run this test with VIRTFLOW_PICTURES=1, and add fleet-history.png"


def test_every_range_has_an_answer(fleet: Served) -> None:
    for span in SPANS:
        text = text_of(f"{fleet.url}/vms/{UUID}/history?range={span.name}")[1]
        assert 'class="missing"' not in text, text
