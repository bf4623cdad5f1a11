"""The fleet page without a browser: complete without scripts, everything escaped, nothing inline, state in the address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from tests.support.fleet_samples import HOSTILE, LONG, Taken, busy, described, fleet_records, migration
from tests.support.served_exporter import exporter_of, get, served
from tests.support.vm_samples import sample, status, uuid
from virtflow.exporter.page.html import Html, el, join
from virtflow.exporter.page.sparkline import path, summary
from virtflow.exporter.page.tables import class_of, key_of
from virtflow.schemas.records import NodeHealth

PAGES = ("/", "/vms", "/nodes", "/migrations", "/events", "/about")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """150 VMs, among them one with a hostile name, one with a long name, a stuck one, a migrating one, and a node that is down."""
    exporter = exporter_of()
    special: list[Taken] = [
        busy(7, 2, name=HOSTILE),
        described(7, sequence=1, name=HOSTILE, title=HOSTILE, project=HOSTILE),
        busy(8, 2, name=LONG, node=f"<b>{LONG[:200]}"),
        busy(9, 2, responsive=0),
        migration(10, source="<i>", destination=HOSTILE),
        status("<node>", health=NodeHealth(up=0, hung_calls=2, hung_calls_limit=3)),
    ]
    exporter.take([*fleet_records(150), *special])
    with served(exporter) as address:
        yield address


def html(url: str, path_: str) -> str:
    code, _, body = get(f"{url}{path_}")
    assert code == 200
    return body.decode()


class Tags(HTMLParser):
    """All elements with their attributes."""

    def __init__(self, text: str) -> None:
        """Of this text."""
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize(
    "page", [*PAGES, f"/vms/{uuid(7)}", f"/vms/{uuid(8)}", "/vms?filter=%3Cscript%3E&sort=-cpu", "/vms?node=%3Cnode%3E"]
)
def test_nothing_is_inline_or_from_elsewhere(url: str, page: str) -> None:
    """The only script and style are files of the exporter's own; no attribute has code or style; the policy forbids all else."""
    code, headers, body = get(f"{url}{page}")
    assert code == 200
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    tags = Tags(body.decode()).found
    assert [attributes.get("src") for tag, attributes in tags if tag == "script"] in ([], ["/static/main.js"])
    assert {tag for tag, _ in tags} & {"style", "iframe", "object", "embed", "base", "b2", "i"} == set()
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("href", "src", "action"):
            assert not (attributes.get(name) or "/").startswith(("http", "//", "javascript:")), attributes


def test_a_hostile_name_is_text(url: str) -> None:
    for page in ("/", "/vms?sort=name", f"/vms/{uuid(7)}", "/migrations", "/nodes", "/events"):
        text = html(url, page)
        assert "<script>alert" not in text
        assert "<node>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html(url, f"/vms/{uuid(7)}")


def test_a_long_name_is_there_whole(url: str) -> None:
    assert LONG in html(url, f"/vms/{uuid(8)}")
    assert LONG in html(url, "/vms?filter=xxxx")


def test_the_first_look_needs_no_script(url: str) -> None:
    """Numbers, rows, filters, order and pages are in the HTML."""
    overview = html(url, "/")
    assert re.search(r'<b data-value="vms" data-format="count">150</b>', overview)
    assert '<b data-value="nodes.down" data-format="count">1</b>' in overview
    assert "does not answer" not in overview or "vm-00009" in overview
    listing = html(url, "/vms?sort=-cpu&limit=20")
    assert listing.count("<tr data-key") == 20
    assert 'aria-sort="descending"' in listing
    following = re.search(r'<a href="(/vms\?[^"]*after=[^"]*)" class="button" rel="next">', listing)
    assert following
    second = html(url, following[1].replace("&amp;", "&"))
    keys = re.compile(r'data-key="([^"]+)"')
    assert not set(keys.findall(listing)) & set(keys.findall(second))
    assert "First page" in second


def test_a_form_keeps_what_was_chosen(url: str) -> None:
    text = html(url, "/vms?filter=vm-0001&state=running&sort=-memory")
    assert 'name="filter" value="vm-0001"' in text
    assert re.search(r'<option value="running" selected>', text)
    assert '<input type="hidden" name="sort" value="-memory"/>' in text
    assert "filter=vm-0001&amp;state=running&amp;sort=memory" in text


@pytest.mark.parametrize(
    ("page", "code"),
    [
        ("/vms?sort=bogus", 400),
        ("/vms/nobody", 404),
        ("/nodes?x=%3Cscript%3E", 400),
        ("/static/nothing.css", 404),
        ("/static/..%2Fsite.py", 404),
        ("/static/vendor/..%2F..%2Fsite.py", 404),
        ("/static/vendor/uPlot.LICENSE", 404),
    ],
)
def test_what_is_wrong_is_said_on_a_page(url: str, page: str, code: int) -> None:
    found, _, body = get(f"{url}{page}")
    assert found == code
    assert b"<script>alert" not in body


def test_a_fleet_that_is_not_known_says_so() -> None:
    with served(exporter_of()) as mine:
        assert "Not fully known yet: no sample has been taken yet" in html(mine, "/")
        for page in PAGES:
            assert get(f"{mine}{page}")[0] == 200


def test_a_vm_without_anything_has_a_page() -> None:
    exporter = exporter_of()
    exporter.take([sample(vcpus=[], networks=[], blocks=[], cpu_seconds_total=float("nan"), name="")])
    with served(exporter) as mine:
        assert uuid(1) in html(mine, f"/vms/{uuid(1)}")


@pytest.mark.parametrize(
    "name",
    [
        "fleet.css",
        "main.js",
        "live.js",
        "tables.js",
        "formats.js",
        "sparkline.js",
        "charts.js",
        "vendor/uPlot.min.css",
        "vendor/uPlot.iife.min.js",
        "search.js",
        "keys.js",
        "icon.svg",
    ],
)
def test_files_are_kept_and_asked_for_again(url: str, name: str) -> None:
    code, headers, _ = get(f"{url}/static/{name}")
    assert (code, headers["Cache-Control"]) == (200, "no-cache")
    assert get(f"{url}/static/{name}", **{"If-None-Match": headers["ETag"]})[0] == 304


def test_text_is_escaped_and_html_is_not() -> None:
    assert el("p", "<a>&", el("b", 1), None, class_="x", data_y='"', hidden=True, title=None, tabindex=0) == (
        '<p class="x" data-y="&quot;" hidden tabindex="0">&lt;a&gt;&amp;<b>1</b></p>'
    )
    assert join("<", Html("<br/>"), 0) == "&lt;<br/>0"
    assert el("input", value="'") == '<input value="&#x27;"/>'


def test_a_line_has_gaps_and_lone_points() -> None:
    assert path([None, 1.0, 2.0, None, 4.0], 44, 24) == "M12 17h0.1L22 12M42 2h0.1"
    assert path([0.0, 0.0], 44, 24) == "M2 22h0.1L42 22"
    assert path([], 44, 24) == ""
    assert summary([None, 2.0, 1.0], "cores") == "now 1, at most 2 in the last hour"
    assert summary([None], "cores") == "nothing known of the last hour"


def test_rows_are_told_apart_and_marked() -> None:
    assert key_of({"id": "r-1", "kind": "vm_state", "uuid": "u", "time": 1.0}) == "r-1"
    assert key_of({"id": "m-1", "kind": "pre_copy", "uuid": "u"}) == "u"
    assert key_of({"uuid": "u", "node": "n"}) == "u"
    assert class_of({"flags": ["stuck"]}) == "stuck"
    assert class_of({"up": False, "hung_calls": 2}) == "down hung"
    assert class_of({"result": "failed"}) == "failed"
