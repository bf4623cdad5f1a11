"""What every page has: head, navigation, state line, foot; and its security policy."""

from __future__ import annotations

from typing import Final

from virtflow.exporter.page.html import Html, el, join

CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline."""

SECTIONS: Final = (("/", "Overview"), ("/vms", "VMs"), ("/nodes", "Nodes"), ("/migrations", "Migrations"), ("/events", "Events"))


def document(title: str, section: str, main: Html, *, missing: str = "", version: str = "") -> str:
    """A whole page. ``section`` is the path of the part it belongs to; ``missing`` why the fleet is not fully known."""
    links = (el("a", name, href=path, aria_current="page" if path == section else None) for path, name in SECTIONS)
    head = join(
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} · virtflow"),
        el("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        el("link", rel="stylesheet", href="/static/fleet.css"),
        el("script", src="/static/main.js", type="module"),
    )
    body = join(
        el("a", "Skip to the content", href="#content", class_="skip"),
        el(
            "header",
            el("a", "virtflow", href="/", class_="brand"),
            el("nav", join(*links), aria_label="Sections"),
            el("p", "As of this page's load", id="live", role="status"),
        ),
        el("main", el("p", f"Not fully known yet: {missing}", class_="missing") if missing else None, main, id="content", tabindex=-1),
        el(
            "footer",
            el("span", f"virtflow {version}"),
            el("a", "This exporter", href="/about"),
            el("a", "Metrics", href="/metrics"),
            el("a", "API", href="/api/v1/openapi.json"),
            el("span", "Keys: / search, j k rows, Enter opens, g then o v n m e goes", class_="keys"),
        ),
    )
    return f"<!doctype html>\n{el('html', el('head', head), el('body', body), lang='en')}\n"


def section(title: str, *children: Html | None, source: str = "", class_: str = "") -> Html:
    """A part of a page with a heading; ``source`` is the address in the API that keeps it current."""
    return el("section", el("h2", title), *children, data_source=source or None, class_=class_ or None)
