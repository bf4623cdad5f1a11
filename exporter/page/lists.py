"""The pages with one long table: VMs, nodes, migrations, events. Search, filters, order and place are in the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from virtflow.exporter.page import columns
from virtflow.exporter.page.formats import shown
from virtflow.exporter.page.html import Html, el, join
from virtflow.exporter.page.tables import Sorting, TableColumn, table
from virtflow.exporter.views.changes import What
from virtflow.exporter.views.vms import FLAGS
from virtflow.schemas.jobs import Result
from virtflow.schemas.states import STATES


class Filter(NamedTuple):
    """A field of a page's form: the API's parameter, its label, and what may be chosen; any text where that is empty."""

    name: str
    label: str
    choices: tuple[str, ...] = ()


class Listing(NamedTuple):
    """One page with a table: where it is, what it is called, its columns and its filters, and what the API is asked besides."""

    path: str
    title: str
    columns: Sequence[TableColumn]
    filters: tuple[Filter, ...]
    fixed: Mapping[str, str] = {}


SEARCH: Final = Filter("filter", "Search")
LISTINGS: Final = {
    "vms": Listing(
        "/vms",
        "Virtual machines",
        columns.VMS,
        (SEARCH, Filter("project", "Project"), Filter("node", "Node"), Filter("state", "State", STATES), Filter("flag", "Flag", FLAGS)),
        {"history": "cpu_cores"},
    ),
    "nodes": Listing("/nodes", "Nodes", columns.NODES, (SEARCH, Filter("state", "State", ("up", "down", "hung")))),
    "migrations": Listing(
        "/migrations",
        "Migrations",
        columns.MIGRATIONS,
        (SEARCH, Filter("node", "Node"), Filter("result", "Result", tuple(one.value for one in Result))),
    ),
    "events": Listing(
        "/events",
        "Events",
        columns.EVENTS,
        (SEARCH, Filter("node", "Node"), Filter("kind", "Kind", tuple(one.value for one in What)), Filter("vm", "VM's UUID")),
    ),
}
"""By the name of the API's endpoint."""


class Asked(NamedTuple):
    """What a page was asked for: the parameters as they came, the order that counts, and names to choose from."""

    query: Mapping[str, str]
    sort: str
    projects: Sequence[str] = ()
    nodes: Sequence[str] = ()


def listing(name: str, answer: Mapping[str, Any], asked: Asked) -> Html:
    """The page's content."""
    page = LISTINGS[name]
    source = f"{name}?{urlencode({**asked.query, **page.fixed})}"
    sorting = Sorting(asked.sort, page.path, asked.query) if asked.sort else None
    results = el(
        "div",
        _counted(name, answer),
        table(page.title, page.columns, answer["items"], "items", sorting),
        _pager(page, answer, asked),
        id="results",
        data_source=source,
    )
    return join(el("h1", page.title), _form(page, asked), results)


def _form(page: Listing, asked: Asked) -> Html:
    """Filters as a form that works by itself; the order is kept."""
    fields = (_field(each, asked) for each in page.filters)
    kept = el("input", type="hidden", name="sort", value=asked.query["sort"]) if "sort" in asked.query else None
    reset = el("a", "Show all", href=page.path, class_="button")
    return el(
        "form",
        *fields,
        kept,
        el("button", "Show", type="submit"),
        reset,
        method="get",
        action=page.path,
        role="search",
        aria_label=f"Filter {page.title.lower()}",
    )


def _field(each: Filter, asked: Asked) -> Html:
    value = asked.query.get(each.name, "")
    if each.choices:
        options = (el("option", choice.replace("_", " "), value=choice, selected=choice == value) for choice in each.choices)
        return el("label", each.label, el("select", el("option", "any", value=""), *options, name=each.name))
    names = {"project": asked.projects, "node": asked.nodes}.get(each.name, ())
    known = el("datalist", *(el("option", value=name) for name in names), id=f"known-{each.name}") if names else None
    kind = "search" if each.name == "filter" else "text"
    field = el(
        "input",
        type=kind,
        name=each.name,
        value=value,
        maxlength=256,
        autocomplete="off",
        spellcheck="false",
        list=f"known-{each.name}" if names else None,
    )
    return el("label", each.label, field, known)


def _counted(name: str, answer: Mapping[str, Any]) -> Html:
    if "matched" not in answer:
        return el("p", "Earlier changes are no longer kept.", class_="counted", hidden=not answer["lost"])
    matched, total = (el("b", shown("count", answer[word]), data_value=word, data_format="count") for word in ("matched", "total"))
    return el("p", matched, " of ", total, f" {'VMs' if name == 'vms' else name}", class_="counted")


def _pager(page: Listing, answer: Mapping[str, Any], asked: Asked) -> Html | None:
    """Where the first and the next page are; events have no pages, since new ones come all the time."""
    if "matched" not in answer:
        return None
    rest = {name: value for name, value in asked.query.items() if name != "after"}
    first = el("a", "First page", href=f"{page.path}?{urlencode(rest)}", class_="button") if "after" in asked.query else None
    after = (
        el("a", "Next page", href=f"{page.path}?{urlencode({**rest, 'after': answer['next']})}", class_="button", rel="next")
        if answer["next"]
        else None
    )
    return el("nav", first, after, class_="pager", aria_label="Pages")
