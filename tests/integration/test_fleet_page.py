"""The fleet page in a real browser: with and without scripts, 10,000 VMs, live, by keyboard, accessible, on a phone, light and dark."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import PHONE, WIDE, chromium, served, visit
from tests.support.fleet_samples import HOSTILE, LONG, busy, described, fleet_records, lasting, migration
from tests.support.processors import eventually
from tests.support.vm_samples import status, uuid
from virtflow.exporter.page.formats import FORMATS
from virtflow.exporter.page.sparkline import path, summary
from virtflow.exporter.service import Exporter
from virtflow.schemas.records import NodeHealth

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
VMS = 10_000
PAGES = (
    "/",
    "/vms?sort=-cpu",
    "/nodes",
    "/migrations",
    "/events",
    f"/vms/{uuid(9)}",
    f"/vms/{uuid(7)}",
    "/nodes/node-1",
    "/nodes/node-down",
    "/about",
    "/vms?filter=nothing",
    "/vms/nobody",
)

Fleet = tuple[Exporter, str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """10,000 VMs whose rates are known, and some of everything that needs attention."""
    with served(request_timeout_seconds=120.0) as (exporter, url):
        exporter.take(lasting(fleet_records(VMS, rounds=1)))
        asked(url, "fleet")
        exporter.take(lasting(busy(number, 1) for number in range(VMS)))
        asked(url, "fleet")
        exporter.take(
            lasting(
                [
                    busy(7, 2, name=HOSTILE),
                    described(7, sequence=1, name=HOSTILE, title=HOSTILE),
                    busy(8, 2, name=LONG),
                    busy(9, 2, responsive=0),
                    busy(11, 2, state=3, state_reason=1),
                    migration(10),
                    migration(12, "failed", reason="unreachable"),
                    status("node-down", health=NodeHealth(up=0, hung_calls=2, hung_calls_limit=3)),
                ]
            )
        )
        # Sums over the fleet are made once for all who ask within half a second: a page without scripts does not ask again.
        eventually("what was taken last is counted", lambda: asked(url, "fleet")["stuck"] == 1)
        yield exporter, url


def asked(url: str, what: str) -> dict[str, object]:
    with urllib.request.urlopen(f"http://{url.removeprefix('http://')}/api/v1/{what}", timeout=60) as reply:
        found: dict[str, object] = json.load(reply)
        return found


def names(page: Page) -> list[str]:
    return page.locator("#results tbody td:first-child a bdi").all_inner_texts()


def test_the_first_look_needs_no_script(browser: Browser, fleet: Fleet) -> None:
    """Numbers, tables, search, order and pages work with scripts off."""
    with visit(browser, fleet[1], java_script_enabled=False) as visited:
        page = visited.go("/")
        expect(page.locator('.tile [data-value="vms"]')).to_have_text("10,000")
        expect(page.get_by_role("table", name="Stuck VMs").locator("tbody tr")).to_have_count(1)
        page.get_by_role("navigation", name="Sections").get_by_role("link", name="VMs").click()
        page.get_by_role("searchbox", name="Search").fill("vm-0123")
        page.get_by_role("button", name="Show").click()
        expect(page).to_have_url(re.compile(r"filter=vm-0123"))
        assert len(names(page)) == 10
        page.get_by_role("columnheader", name="Cores", exact=True).get_by_role("link").click()
        cores = [float(text) for text in page.locator("#results tbody td:nth-child(6)").all_inner_texts()]
        assert cores == sorted(cores, reverse=True)


def test_pages_of_ten_thousand_vms(browser: Browser, fleet: Fleet) -> None:
    """Sorted, filtered and paged without a load of the page; the address says it all, and goes back."""
    with visit(browser, fleet[1]) as visited:
        page = visited.lively("/vms")
        page.evaluate("window.same = true")
        expect(page.locator(".counted")).to_have_text("10,000 of 10,000 VMs")
        first = names(page)
        page.get_by_role("link", name="Next page").click()
        expect(page).to_have_url(re.compile("after="))
        expect(page.get_by_role("link", name="First page")).to_be_visible()
        assert not set(names(page)) & set(first)
        page.get_by_role("columnheader", name="Received").get_by_role("link").click()
        expect(page.get_by_role("columnheader", name="Received")).to_have_attribute("aria-sort", "descending")
        assert names(page)[:2] == ["vm-09999", "vm-09998"]
        page.get_by_role("searchbox", name="Search").fill("vm-00")
        expect(page.locator(".counted")).to_have_text("998 of 10,000 VMs")
        expect(page).to_have_url(re.compile(r"filter=vm-00.*sort=-receive|sort=-receive.*filter=vm-00"))
        page.get_by_label("State").select_option("paused")
        expect(page.locator(".counted")).to_have_text("1 of 10,000 VMs")
        assert names(page) == ["vm-00011"]
        assert page.evaluate("window.same") is True
        page.reload()
        assert names(page) == ["vm-00011"]
        page.get_by_role("link", name="Show all").click()
        expect(page.locator(".counted")).to_have_text("10,000 of 10,000 VMs")


def test_filters_by_project_and_node(browser: Browser, fleet: Fleet) -> None:
    with visit(browser, fleet[1]) as visited:
        page = visited.lively("/vms")
        page.get_by_label("Project").fill("project-3")
        expect(page.locator(".counted")).to_have_text("1,429 of 10,000 VMs")
        page.get_by_label("Node").fill("node-2")
        expect(page.locator(".counted")).to_have_text("7 of 10,000 VMs")


def test_a_page_is_kept_current(browser: Browser, fleet: Fleet) -> None:
    """A VM that stops to answer, one that is paused, and an event show by themselves; what did not change stays the same element."""
    exporter, url = fleet
    with visit(browser, url) as visited:
        page = visited.lively("/")
        before = int(page.locator('[data-value="stuck"]').inner_text())
        page.evaluate("document.querySelector('h2').dataset.kept = 'yes'")
        exporter.take(lasting([busy(20, 5, responsive=0)]))
        expect(page.locator('[data-value="stuck"]')).to_have_text(str(before + 1))
        expect(page.get_by_role("table", name="Stuck VMs").get_by_role("link", name="vm-00020")).to_be_visible()
        expect(page.get_by_role("table", name="Newest events").get_by_text("does not answer").first).to_be_visible()
        assert page.locator("h2[data-kept]").count() == 1
        exporter.take(lasting([busy(20, 6, responsive=1)]))
        expect(page.locator('[data-value="stuck"]')).to_have_text(str(before))
        page = visited.lively(f"/vms/{uuid(21)}")
        expect(page.locator("h1")).to_have_text("vm-00021")
        exporter.take(lasting([busy(21, 5, state=3, state_reason=1)]))
        expect(page.locator('.facts [data-value="state"]')).to_have_text("paused")
        expect(page.get_by_role("table", name="Events").get_by_text("running → paused (user)")).to_be_visible()
        expect(page.locator('figure [data-spark="hour.cpu_cores"]')).to_have_attribute("aria-label", re.compile("CPU cores: "))


def test_a_vm_has_its_devices(browser: Browser, fleet: Fleet) -> None:
    with visit(browser, fleet[1]) as visited:
        page = visited.lively(f"/vms/{uuid(39)}")
        expect(page.get_by_role("table", name="Disks").locator("tbody")).to_contain_text("vda")
        expect(page.get_by_role("table", name="Disks").locator("tbody")).to_contain_text("40 KiB/s")
        expect(page.get_by_role("table", name="Network").locator("tbody")).to_contain_text("vnet39")
        expect(page.get_by_role("table", name="Virtual CPUs").locator("tbody tr")).to_have_count(2)


def test_hostile_names_are_text(browser: Browser, fleet: Fleet) -> None:
    """In HTML of the server and in what scripts put in; a name of 1,024 characters does not widen the page."""
    dialogs: list[str] = []
    with visit(browser, fleet[1]) as visited:
        visited.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        page = visited.lively("/vms?filter=script")
        expect(page.locator("#results tbody bdi").first).to_have_text(HOSTILE)
        page = visited.lively(f"/vms/{uuid(7)}")
        expect(page.locator("h1 bdi")).to_have_text(HOSTILE)
        page.evaluate("document.querySelectorAll('[data-rounds]')")
        for address in ("/vms?filter=xxxx", f"/vms/{uuid(8)}"):
            page = visited.lively(address)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
    assert dialogs == []


def test_the_policy_holds(browser: Browser, fleet: Fleet) -> None:
    """An inline script that got in all the same would not run."""
    with visit(browser, fleet[1]) as visited:
        page = visited.lively("/")
        page.evaluate("const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s)")
        assert page.evaluate("window.ran") is None
        assert len(visited.wrong) == 1
        assert "Content Security Policy" in visited.wrong.pop()


def test_everything_by_keyboard(browser: Browser, fleet: Fleet) -> None:
    with visit(browser, fleet[1]) as visited:
        page = visited.lively("/vms")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
        page.keyboard.type("vm-00042")
        expect(page.locator(".counted")).to_have_text("1 of 10,000 VMs")
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        expect(page.get_by_role("link", name="vm-00042")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("vm-00042")
        expect(page.locator("#live")).to_have_text("Live")  # keys are heard from then on
        page.keyboard.press("g")
        page.keyboard.press("n")
        expect(page.locator("h1")).to_have_text("Nodes")


def test_a_focused_link_keeps_the_focus_while_rows_are_refreshed(browser: Browser, fleet: Fleet) -> None:
    exporter, url = fleet
    with visit(browser, url) as visited:
        page = visited.lively("/vms?filter=vm-0003&sort=-receive")
        link = page.get_by_role("link", name="vm-00035")
        link.focus()
        exporter.take(lasting([busy(35, 5, networks=[])]))
        expect(page.locator("#results tbody tr").last.locator("bdi").first).to_have_text("vm-00035")
        expect(link).to_be_focused()


def test_an_exporter_that_is_gone_is_said(browser: Browser) -> None:
    """And the page goes on where it comes back... as soon as it does."""
    with served() as (exporter, url):
        exporter.take(lasting([busy(1, 0)]))
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#live")).to_have_text("No answer, trying again")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_no_violation(browser: Browser, fleet: Fleet, scheme: str, viewport: dict[str, int]) -> None:
    """Every rule of axe-core, contrast included, on every page."""
    axe = Axe()
    with visit(browser, fleet[1], color_scheme=scheme, viewport=viewport) as visited:
        for address in PAGES:
            page = visited.go(address)
            if address not in {"/about", "/vms/nobody"}:
                expect(page.locator("#live")).to_have_text("Live")
            found = axe.run(page)
            assert found.violations_count == 0, f"{address}: {found.generate_report()}"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
        visited.wrong[:] = [text for text in visited.wrong if "404" not in text]


SIZES: Final[tuple[float, ...]] = (
    *(0, 0.004, 0.005, 0.1, 0.125, 0.29, 0.999, 1, 1.005, 9.994, 9.995, 9.996, 10.05, 59.99, 60, 99.94, 99.95, 100, 999.4, 999.5),
    *(1023.4, 1023.5, 1024, 3599, 3600, 86_399, 86_400, 123_456.789, 1.5e9, 2.0**40, 1e13),
)
"""Values at and beside each limit where a format changes its unit or its digits."""
CURVES: Final[tuple[list[float | None], ...]] = ([None, 1.0, 2.5, None, 4.0], [0.0] * 5, [], [None], [1 / 3, 2 / 3, 1e9])


def test_scripts_show_values_as_the_server_does(browser: Browser, fleet: Fleet) -> None:
    """Every format and picture of page/formats.py and page/sparkline.py against static/*.js, on values of all sizes."""
    with visit(browser, fleet[1]) as visited:
        page = visited.lively("/")
        code = "async ([names, values]) => { const {shown} = await import('/static/formats.js'); return names.map((name) => values.map((value) => shown(name, value))) }"
        found = page.evaluate(code, [list(FORMATS), list(SIZES)])
        for name, texts in zip(FORMATS, found, strict=True):
            assert texts == [FORMATS[name](value) for value in SIZES], name
        drawn = page.evaluate(
            "async (lines) => { const {path, summary} = await import('/static/sparkline.js'); return lines.map((line) => [path(line, 240, 40), summary(line, 'rate')]) }",
            list(CURVES),
        )
        assert drawn == [[path(line, 240, 40), summary(line, "rate")] for line in CURVES]


def test_scripts_make_the_cells_that_the_server_makes(browser: Browser, fleet: Fleet) -> None:
    """Rows that the API fills in are the HTML of the first look, but for the ages and the hour."""
    with visit(browser, fleet[1], java_script_enabled=False) as plain, visit(browser, fleet[1]) as live:
        for address in ("/vms?sort=-cpu&limit=30", "/nodes", "/migrations", f"/vms/{uuid(39)}", "/nodes/node-down"):
            texts = []
            for page in (plain.go(address), live.lively(address)):
                html = "".join(page.locator("main tbody").nth(number).inner_html() for number in range(page.locator("main tbody").count()))
                texts.append(re.sub(r"[\d.]+ (s|min|h|d|µs|ms)\b|<svg[^>]*spark.*?</svg>", "", html))
            assert texts[0].split("<td") == texts[1].split("<td"), address


def test_pictures_for_the_documentation(browser: Browser, fleet: Fleet, tmp_path: Path) -> None:
    """Taken always; with VIRTFLOW_PICTURES=1 into docs/images. They are what the pages show."""
    folder = IMAGES if os.environ.get("VIRTFLOW_PICTURES") else tmp_path
    for name, address, options in (
        ("fleet-overview", "/", {}),
        ("fleet-vms", "/vms?sort=-cpu", {"color_scheme": "dark"}),
        ("fleet-phone", "/vms?flag=stuck", {"viewport": PHONE}),
    ):
        with visit(browser, fleet[1], **options) as visited:
            visited.lively(address).screenshot(path=folder / f"{name}.png")
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (IMAGES / f"{name}.png").exists(), f"run this test with VIRTFLOW_PICTURES=1, and add {name}.png"
