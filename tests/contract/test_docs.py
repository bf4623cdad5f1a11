"""The documentation's links, paths and words are those of the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.doc_blocks import GENERATED, pages
from virtflow.runtime.configuration import rows
from virtflow.schemas.catalogue.metrics import BY_NAME
from virtflow.schemas.catalogue.scaling import BY_SCALING_NAME

ROOT = Path(__file__).resolve().parents[2]


PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file, and its anchor a heading of it."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_glossary_says_where_each_word_lives() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \|.*\| (.*) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(rows) > 20
    words = [word.lower() for word, _ in rows]
    assert words == sorted(words)
    for word, where in rows:
        for path in re.findall(r"`([^`]+)`", where):
            assert (ROOT / path).exists(), f"{word}: {path}"


def test_each_decision_is_listed_and_has_its_parts() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    records = sorted(folder.glob("[0-9]*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        assert f"({record.name})" in index
        assert all(f"**{part}.**" in record.read_text() for part in ("Context", "Decision", "Consequences")), record.name


KINDS = ("Tutorial", "How-to", "Reference", "Explanation", "Decision records")


def test_the_index_sorts_every_page_by_kind() -> None:
    """A page that nobody finds is not there: docs/README.md lists each one, below the kind that it is of."""
    folder = ROOT / "docs"
    index = (folder / "README.md").read_text()
    heads = re.findall(r"^## ([\w -]+)", index, re.MULTILINE)
    assert tuple(head.split(":")[0] for head in heads) == KINDS
    listed = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", index)}
    assert {page.name for page in folder.glob("*.md")} - {"README.md"} == {name for name in listed if "/" not in name}
    assert {"runbooks/README.md", "decisions/README.md", "../README.md", "../CONTRIBUTING.md"} <= listed


CHART_VALUES = {
    f"{group}.{name}"
    for group, values in yaml.safe_load((ROOT / "deploy" / "helm" / "virtflow" / "values.yaml").read_text()).items()
    if isinstance(values, dict)
    for name in values
}
"""Values of the Helm chart, some of which are named like settings."""


def test_metrics_and_settings_that_pages_name_exist() -> None:
    """What stands in backticks and looks like a metric or a setting is one."""
    settings = {row.path for row in rows()}
    sections, keys = {row.section for row in rows()}, {row.key for row in rows()}
    named = 0
    for page in PAGES:
        if page.name == "CHANGELOG.md":  # it also says what was
            continue
        text = page.read_text()
        for metric in re.findall(r"`((?:vm|virtflow)_[a-z0-9_]+)[`{]", text):
            named += 1
            assert (
                metric in BY_NAME
                or metric in BY_SCALING_NAME
                or metric in keys
                or (ROOT / "producer" / "records" / f"{metric}.py").exists()
            ), f"{page.name}: {metric}"
        for setting in re.findall(r"`([a-z]+\.[a-z0-9_]+)`", text):
            if setting.split(".")[0] in sections and not setting.endswith((".json", ".toml", ".yaml", ".yml")):
                named += 1
                assert setting in settings or setting in CHART_VALUES, f"{page.name}: {setting}"
    assert named > 200


OLD_WORDS = (
    "captive",
    "captured",
    "speaks",
    "anew",
    "mend",
    "mended",
    "for ever",
    "beset",
    "process apart",
    "passed by",
    "was told",
    "has told",
    "told of",
)
"""Words that only this project once used for what has a name of its own: the glossary has those names."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    """Pages that people write; generated ones repeat the help texts in the code."""
    text = page.read_text()
    if not text.startswith(GENERATED):
        assert not [word for word in OLD_WORDS if re.search(rf"\b{word}\b", text, re.IGNORECASE)]
