"""`history serve` within its limits: what asks for too much is refused with the limit's name, and the server goes on answering others."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.history_serving import serving, until
from tests.support.history_years import DAY, HOUR, hours_of_vm, write_years
from virtflow.history.remote_read.protocol.wire import Asked, Hints, Match, Matcher
from virtflow.runtime.settings import History

NOW = int(time.time()) // DAY * DAY


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of two VMs."""
    path = tmp_path_factory.mktemp("limits") / "history"
    write_years(path, {number: hours_of_vm(number, NOW - 10 * DAY, NOW) for number in (1, 2)})
    return path


def of(metric: str, name: str, start: int, step: int = HOUR) -> Asked:
    """A range up to now, as Prometheus asks for it."""
    matchers = (Matcher(Match.EQUAL, "__name__", metric), Matcher(Match.REGEX, "name", name))
    return Asked(start * 1000, NOW * 1000, matchers, Hints(step=step * 1000, start=start * 1000, end=NOW * 1000))


BEYOND = {
    "history.serve_series": ("1", of("vm_memory_rss_bytes", "vm-.*", NOW - 3 * DAY)),
    "history.serve_samples": ("100", of("vm_memory_rss_bytes", "vm-1", NOW - 9 * DAY)),
    "history.serve_days": ("400", of("vm_memory_rss_bytes", "vm-1", NOW - 500 * DAY)),
    "steps": ("", of("vm_memory_rss_bytes", "vm-1", NOW - 300 * DAY, step=1)),
}
"""Settings, what they are set to, and a query that asks for more; the number of steps is fixed."""


@pytest.mark.parametrize("limit", BEYOND)
def test_beyond_a_limit_is_refused_by_name_and_within_it_answered(limit: str, history: Path, tmp_path: Path) -> None:
    value, asked = BEYOND[limit]
    env = {f"VIRTFLOW_{limit.upper().replace('.', '_')}": value} if value else {}
    with serving(history, tmp_path, env) as server:
        status, said = server.read(asked)
        assert status == 400
        assert limit in said
        assert "\n" not in said.strip()
        assert server.read(of("vm_memory_rss_bytes", "vm-1", NOW - 3 * DAY)) == (200, "")


def test_a_label_that_no_series_has_is_refused_told_and_counted(history: Path, tmp_path: Path) -> None:
    """As a Prometheus with ``external_labels: {region: north}`` asks."""
    query = of("vm_memory_rss_bytes", ".*", NOW - 3 * DAY)
    asked = replace(query, matchers=(*query.matchers, Matcher(Match.EQUAL, "region", "north")))
    with serving(history, tmp_path) as server:
        for count in (1, 2):
            status, said = server.read(asked)
            assert status == 400
            assert "has the label region" in said
            assert server.value("virtflow_history_serve_unknown_labels_total") == count
        assert "has the label region" in server.log.read_text()


def test_an_external_label_named_like_one_of_ours_is_told_once_and_counted(history: Path, tmp_path: Path) -> None:
    """As a Prometheus with ``external_labels: {name: prom-1}`` asks: every query is answered, with nothing, whatever it wants."""
    external = Matcher(Match.EQUAL, "name", "prom-1")
    metrics = ("vm_memory_rss_bytes", "vm_cpu_seconds_total")
    queries = [of(metric, ".*", NOW - 3 * DAY) for metric in metrics]
    asked = [replace(query, matchers=(*query.matchers, external)) for query in queries]
    counter = "virtflow_history_serve_unknown_values_total"
    with serving(history, tmp_path) as server:
        assert [server.read(each) for each in asked * 10] == [(200, "")] * 20
        until(lambda: server.value(counter) == 20, server)
        assert [server.read(each) for each in asked * 10] == [(200, "")] * 20
        until(lambda: server.value(counter) == 40, server)
        assert server.read(*queries) == (200, "")
        assert server.value(counter) == 40
        told = [line for line in server.log.read_text().splitlines() if "prom-1" in line]
    (line,) = told
    assert "filter_external_labels: false" in line
    assert "name='prom-1'" in line


def test_a_name_that_a_vm_once_had_is_not_told(history: Path, tmp_path: Path) -> None:
    """A dashboard of a VM that is gone asks again and again."""
    before = Asked(1_000, 2_000, (Matcher(Match.EQUAL, "__name__", "vm_memory_rss_bytes"), Matcher(Match.EQUAL, "name", "vm-1")))
    unknown = replace(before, matchers=(before.matchers[0], Matcher(Match.EQUAL, "name", "prom-1")))
    counter = "virtflow_history_serve_unknown_values_total"
    with serving(history, tmp_path) as server:
        for each in (before, unknown):
            assert [server.read(each) for _ in range(20)] == [(200, "")] * 20
        until(lambda: server.value(counter) == 20, server)  # what came later is told by now
        assert "vm-1" not in server.log.read_text()


def test_a_body_that_is_too_large_is_not_read(history: Path, tmp_path: Path) -> None:
    with serving(history, tmp_path) as server:
        assert server.send(bytes(8 << 20))[0] in {0, 400, 413}
        assert server.page("/healthz") == 200


def test_nobody_else_is_served_by_default() -> None:
    """Both of the history's addresses are this machine's own unless somebody says otherwise."""
    assert History().listen.startswith("127.0.0.1:")
    assert History().serve_listen.startswith("127.0.0.1:")
