"""URLs of servers: one rule, which every setting that is one has, for the services as for ``check``."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtflow.runtime.configuration import Row, load, rows, survey
from virtflow.runtime.sections.rows import url_problem
from virtflow.schemas.errors import SettingError

SECRET = "hunter2"  # noqa: S105, of this test
NO_URL = "is no http or https URL"
BAD = {
    "ftp://x": NO_URL,
    "registry:8081": NO_URL,
    "registry": NO_URL,
    "//registry": NO_URL,
    "/grafana": NO_URL,
    "http://": NO_URL,
    "http:///path": NO_URL,
    "http://[::1": NO_URL,
    "http://h:0": NO_URL,
    "http://h:70000": NO_URL,
    "http://h:x": NO_URL,
    "http://h/a b": NO_URL,
    "http://h\n": NO_URL,
    "http://hôte": NO_URL,
    "javascript:alert(1)": NO_URL,
    f"http://user:{SECRET}@h": "names a user",
    f"https://{SECRET}@h/x": "names a user",
    "http://h/#x": "has a query or a fragment",
}
GOOD = ("http://h", "https://h/", "HTTPS://h:1/prefix/", "http://[::1]:9090", "http://10.0.0.1:65535/a/b")
URLS = [row for row in rows() if row.url]


@pytest.mark.parametrize(("url", "why"), BAD.items())
def test_what_can_not_be_asked(url: str, why: str) -> None:
    assert url_problem(url, query=True) == why


@pytest.mark.parametrize("url", GOOD)
def test_what_can_be_asked(url: str) -> None:
    assert url_problem(url) == ""
    assert url_problem(f"{url}?x=1") == "has a query or a fragment"
    assert url_problem(f"{url}?x=1", query=True) == ""


def test_every_url_among_the_settings_is_declared_as_one() -> None:
    """By its name or its help; libvirt has schemes of its own."""
    assert [row.path for row in rows() if (row.key.endswith(("url", "endpoint")) or "URL of" in row.about) and not row.url] == []
    assert len(URLS) == 8
    assert {row.path for row in URLS if row.query} == {"kafka.oauth_token_url"}


@pytest.mark.parametrize("row", URLS, ids=lambda row: str(row.path))
def test_a_service_and_check_refuse_it_alike(row: Row, tmp_path: Path) -> None:
    """With its name, what would be right, and without what may be a secret; an example and the default are taken."""
    file = tmp_path / "virtflow.toml"
    for url, why in BAD.items():
        text = url.replace("\n", "\\n")
        file.write_text(f'[{row.section}]\n{row.key} = "{text}"\n', "utf-8")
        with pytest.raises(SettingError) as caught:
            load(file, {})
        (found,) = survey(file, {}).errors
        assert str(found) == str(caught.value)
        assert (found.key, found.why) == (row.path, why)
        assert row.url in found.fix
        assert SECRET not in str(found)
    for good in (row.url, ""):
        assert getattr(getattr(load(None, {row.variable: good}), row.section), row.key) == good
    assert not url_problem(row.default or row.url, query=row.query)
