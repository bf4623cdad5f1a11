"""Lists and watches, from bytes to objects."""

from __future__ import annotations

import pytest

from virtflow.adapter.kubernetes import events
from virtflow.adapter.kubernetes.events import Change, Lines, WatchEndedError, event, listed

POD = (
    b'{"metadata":{"name":"a","namespace":"n","resourceVersion":"7","labels":{"app":"web"}},"status":{"phase":"Running","podIP":"1.2.3.4"}}'
)


def test_a_list_has_objects_a_version_and_perhaps_a_next_page() -> None:
    found = listed(b'{"kind":"PodList","metadata":{"resourceVersion":"9","continue":"more"},"items":[' + POD + b"]}")
    assert (found.metadata.resourceVersion, found.metadata.continue_) == ("9", "more")
    assert [one.key for one in found.items or []] == [("n", "a")]


def test_an_empty_list_of_metadata_has_null_for_its_items() -> None:
    """As a real API server writes it."""
    assert not listed(b'{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"9"},"items":null}').items


@pytest.mark.parametrize("change", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
def test_events(change: str) -> None:
    kind, found = event(b'{"type":"' + change.encode() + b'","object":' + POD + b"}")
    assert kind == Change[change]
    assert (found.metadata.resource_version, found.status.phase) == ("7", "Running")


def test_a_version_that_is_too_old_asks_for_a_new_list() -> None:
    with pytest.raises(WatchEndedError, match="too old") as ended:
        event(b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old resource version"}}')
    assert ended.value.anew


def test_another_error_goes_on_where_it_was() -> None:
    with pytest.raises(WatchEndedError, match="code 500") as ended:
        event(b'{"type":"ERROR","object":{"kind":"Status","code":500}}')
    assert not ended.value.anew


@pytest.mark.parametrize("line", [b"", b"{", b'{"type":"OTHER","object":{}}', b"[]", b'{"type":"ADDED","object":{"metadata":7}}'])
def test_what_is_no_event_asks_for_a_new_list(line: bytes) -> None:
    with pytest.raises(WatchEndedError) as ended:
        event(line)
    assert ended.value.anew


@pytest.mark.parametrize("body", [b"", b"[]", b'{"items":7}'])
def test_what_is_no_list_is_none(body: bytes) -> None:
    with pytest.raises(WatchEndedError):
        listed(body)


def test_lines_are_whole_however_they_come() -> None:
    lines = Lines()
    found = [line for chunk in (b"on", b"e\ntwo\n\nth", b"ree", b"\n", b"rest") for line in lines.feed(chunk)]
    assert found == [b"one", b"two", b"three"]


def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LINE_BYTES", 10)
    lines = Lines()
    assert list(lines.feed(b"0123456789")) == []
    with pytest.raises(WatchEndedError):
        list(lines.feed(b"0"))
