"""Somebody who has never seen the fleet page answers the questions of an operator in at most six clicks and keys each."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.browser import chromium, served, visit
from tests.support.fleet_samples import busy, fleet_records, lasting, migration
from tests.support.history_double import history_double, matrix
from tests.support.vm_samples import status, uuid
from virtflow.schemas.records import NodeHealth

STEPS: Final = 6
VMS: Final = 120


class Stranger:
    """Clicks and presses keys on what can be seen, and counts them; a text that is typed or pasted is one."""

    def __init__(self, page: Page) -> None:
        """At the first page."""
        self.page = page
        self.steps = 0

    def click(self, target: Locator) -> None:
        """One click on something that is seen."""
        self.steps += 1
        expect(target).to_be_visible()
        target.click()

    def press(self, key: str) -> None:
        """One key."""
        self.steps += 1
        self.page.keyboard.press(key)

    def write(self, text: str) -> None:
        """A text into the field that has the focus."""
        self.steps += 1
        self.page.keyboard.type(text)

    def link(self, name: str | re.Pattern[str], within: str = "body") -> Locator:
        """The first link of that name."""
        return self.page.locator(within).get_by_role("link", name=name).first


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """120 VMs: one is stuck, one migrates, a node is down, and a history server knows all."""
    ill = NodeHealth(up=0, hung_calls=3, hung_calls_limit=3)
    with (
        history_double(lambda asked: matrix(asked, lambda at: at % 86_400 / 86_400)) as history,
        served(history_url=history.url, grafana_url="https://grafana.example", request_timeout_seconds=120.0) as (exporter, address),
    ):
        exporter.take(lasting(fleet_records(VMS, rounds=1)))
        while f'"vms":{VMS}' not in looked(address):
            pass
        exporter.take(lasting([*(busy(n, 1) for n in range(VMS)), busy(9, 2, responsive=0), migration(10), status("node-9", health=ill)]))
        yield address


def looked(url: str) -> str:
    """The fleet in numbers: a look at it."""
    with urllib.request.urlopen(f"{url}/api/v1/fleet", timeout=60) as reply:  # noqa: S310, our own
        found: str = reply.read().decode()
        return found


@contextmanager
def stranger(browser: Browser, url: str) -> Iterator[Stranger]:
    """At the first page; at the end no more than the allowed steps were needed."""
    with visit(browser, url) as visited:
        found = Stranger(visited.lively("/"))
        yield found
        assert 0 < found.steps <= STEPS


def test_which_vm_uses_most_and_what_are_its_disks(browser: Browser, url: str) -> None:
    with stranger(browser, url) as person:
        person.click(person.link("CPU cores"))
        expect(person.page.locator("h1")).to_have_text("Virtual machines")
        person.click(person.link("vm-00119", "#results"))
        expect(person.page.get_by_role("table", name="Disks").locator("tbody")).to_contain_text("vda")


def test_which_vm_does_not_answer_and_what_is_to_be_done(browser: Browser, url: str) -> None:
    with stranger(browser, url) as person:
        person.click(person.link(re.compile("^1 ?stuck"), "main"))
        person.click(person.link("vm-00009", "#results"))
        expect(person.link("Runbook: VirtflowVmStuck")).to_have_attribute("href", re.compile(r"/runbooks/VirtflowVmStuck\.md$"))


def test_what_is_wrong_on_the_node_that_is_down(browser: Browser, url: str) -> None:
    with stranger(browser, url) as person:
        person.click(person.link("node-9", "main"))
        wrong = person.page.get_by_role("table", name="What is wrong").locator("tbody")
        expect(wrong).to_contain_text("3 calls do not come back, as many as may")
        expect(wrong).to_contain_text("VirtflowHungCallLimitReached")


def test_what_a_vm_did_in_the_last_year(browser: Browser, url: str) -> None:
    """Found by its name, with keys alone up to its page."""
    with stranger(browser, url) as person:
        person.click(person.link("VMs", "header"))
        expect(person.page.locator("#live")).to_have_text("Live")
        person.press("/")
        person.write("vm-00042")
        expect(person.page.locator(".counted")).to_have_text(f"1 of {VMS} VMs")
        person.click(person.link("vm-00042", "#results"))
        person.click(person.link("1 year"))
        expect(person.page.locator("#long-history figure")).to_have_count(8)


def test_what_migrates_and_how_far_it_is(browser: Browser, url: str) -> None:
    with stranger(browser, url) as person:
        person.press("g")
        person.press("m")
        expect(person.page.locator("h1")).to_have_text("Migrations")
        expect(person.page.locator("#results tbody")).to_contain_text("25 %")
        person.click(person.link("vm-00010", "#results"))
        expect(person.page.locator("main")).to_contain_text("node-2")


def test_who_owns_the_vms_of_a_node(browser: Browser, url: str) -> None:
    with stranger(browser, url) as person:
        person.click(person.link("Nodes", "header"))
        person.click(person.link("node-3", "#results"))
        expect(person.page.get_by_role("table", name="Its VMs, by cores").locator("tbody tr")).to_have_count(20)
        person.click(person.link("project-5", "main"))
        expect(person.page).to_have_url(re.compile("/vms.project=project-5"))
        expect(person.page.get_by_role("table").locator(f'tr[data-key="{uuid(110)}"]')).to_be_visible()


def test_the_dashboard_of_a_vm(browser: Browser, url: str) -> None:
    with stranger(browser, url) as person:
        person.click(person.link("vm-00119", "main"))
        expect(person.link("Grafana: this VM")).to_have_attribute(
            "href", f"https://grafana.example/d/virtflow-vm/virtflow-vm?var-uuid={uuid(119)}"
        )
