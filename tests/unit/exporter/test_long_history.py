"""The long history on the fleet page and in the API, asked of a double: what is asked, what is shown, and what a server can't do to us."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import free_ports
from tests.support.fleet_samples import HOSTILE, busy, described, fleet_records, lasting, migration
from tests.support.history_double import Answer, Asked, HistoryDouble, history_double, matrix
from tests.support.served_exporter import exporter_of, get, served
from tests.support.vm_samples import uuid
from virtflow.exporter.details.charts import summary, ticks
from virtflow.exporter.long_history.client import Data, Reply, Series, values_of
from virtflow.exporter.long_history.curves import BY_NAME, CURVES, KNOWN_AT_ALL, promql
from virtflow.exporter.long_history.periods import DAY, LONGEST, SPANS, Period, of_span, period, since_first
from virtflow.exporter.views.ring import COLUMNS
from virtflow.runtime.access.rights import Right, right_for
from virtflow.schemas.catalogue.metrics import BY_NAME as METRICS
from virtflow.schemas.errors import SettingError

NOW = 1_790_000_123.0


def test_the_curves_are_those_of_the_last_hour() -> None:
    assert sorted(curve.name for curve in CURVES) == sorted(COLUMNS)


@pytest.mark.parametrize("curve", [*CURVES, KNOWN_AT_ALL], ids=str)
def test_curves_ask_for_metrics_that_exist(curve: Any) -> None:  # noqa: ANN401, a curve or an expression
    query = promql(getattr(curve, "expression", curve), "u-1", 600)
    names = re.findall(r"\bvm_[a-z0-9_]+", query)
    assert names
    assert [name for name in names if name not in METRICS] == []
    assert query.count('{uuid="u-1"}[600s]') == len(names)
    assert "VM" not in query
    assert "W" not in query


def test_a_uuid_stays_within_its_quotes() -> None:
    assert promql("rate(vm_xVM[W])", 'a"} or vm_state{name="b\\', 60) == r'rate(vm_x{uuid="a\"} or vm_state{name=\"b\\"}[60s])'


def test_periods_lie_on_their_step() -> None:
    assert period(NOW - DAY, NOW) == Period(1_789_914_000, 1_790_000_100, 300)
    for span in SPANS:
        found = of_span(span, NOW)
        assert found.start % found.step == found.end % found.step == 0
        assert found.end <= NOW
        assert 80 < found.points <= 400, span
        assert len(found.times) == found.points
    assert period(100.0, 200.0, 3_600).points == 1


@pytest.mark.parametrize(
    ("start", "end", "step", "why"),
    [(5.0, 5.0, 0, "ends before"), (0.0, LONGEST + 1.0, 0, "longer than 3640 days"), (0.0, 86_400.0, 1, "86401 points")],
)
def test_periods_have_limits(start: float, end: float, step: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        period(start, end, step)


def test_all_begins_with_the_first_sample() -> None:
    coarse = of_span(SPANS[-1], NOW)
    values: list[float | None] = [None] * coarse.points
    assert since_first(coarse, values, NOW).start > NOW - 2 * DAY, "what is not rolled up yet"
    values[-3] = 1.0
    found = since_first(coarse, values, NOW)
    assert coarse.times[-4] <= found.start <= coarse.times[-3]
    assert found.step == 21_600
    assert found.points > 100


@pytest.mark.parametrize(("days", "step"), [(1, 300), (2, 600), (2.1, 7_200), (30, 7_200), (62, 21_600), (366, DAY), (3_640, 14 * DAY)])
def test_longer_ranges_are_asked_of_roll_ups(days: float, step: int) -> None:
    """`history serve` answers them from samples otherwise, of which a month has a quarter of a million for each counter."""
    assert period(NOW - days * DAY, NOW).step == step


def test_a_window_has_a_few_samples() -> None:
    assert Period(0, 300, 300).window(10.0) == 300
    assert Period(0, 300, 300).window(300.0) == 1_200
    assert Period(0, 300, 300).window(float("nan")) == 300


def test_values_lie_on_the_points_and_what_is_no_number_is_unknown() -> None:
    pairs = [(0.0, "1"), (60.0, "NaN"), (120.0, "+Inf"), (130.0, "9"), (180.0, "x"), (240.0, "2.5"), (360.0, "7"), (-60.0, "7")]
    reply = Reply(status="success", data=Data([Series(pairs), Series([(60.0, "3"), (240.0, "4")])]))
    assert values_of(reply, Period(0, 300, 60)) == [1.0, 3.0, None, None, 2.5, None]


def test_a_chart_says_what_it_shows() -> None:
    assert summary(BY_NAME["read_bytes"], [None, 1024.0, 3072.0]) == "2 KiB/s on average, 3 KiB/s at most"
    assert summary(BY_NAME["latency"], [None]) == "nothing known"
    assert ticks(Period(0, DAY, 300)) == ["00:00", "06:00", "12:00", "18:00", "00:00"]
    assert ticks(Period(0, 4 * DAY, DAY))[1:3] == ["1970-01-02", "1970-01-03"]


def test_the_page_needs_the_right_that_the_api_needs() -> None:
    assert right_for("GET", "/vms/{uuid}/history") is right_for("GET", "/api/v1/vms/{uuid}/history") is Right.HISTORY
    assert right_for("GET", "/vms/{uuid}") is Right.METRICS


def ramp(asked: Asked) -> Answer:
    """The minute of the hour at each point; nothing known in every fifth."""
    return matrix(asked, lambda at: None if at // 300 % 5 == 0 else at % 3_600 / 60)


@contextmanager
def fleet(**fields: Any) -> Iterator[str]:  # noqa: ANN401, settings
    exporter = exporter_of(**fields)
    exporter.take(lasting([*fleet_records(60), busy(7, 2, name=HOSTILE), migration(8, source="<i>", destination="node-2")]))
    with served(exporter) as url:
        yield url


@pytest.fixture(scope="module")
def double() -> Iterator[HistoryDouble]:
    with history_double(ramp) as found:
        yield found


@pytest.fixture(scope="module")
def url(double: HistoryDouble) -> Iterator[str]:
    with fleet(history_url=f"{double.url}/prefix/") as found:
        yield found


def told(url: str, path: str) -> tuple[int, dict[str, Any]]:
    code, _, body = get(f"{url}{path}")
    return code, json.loads(body)


def test_the_api_answers_with_what_the_server_says(url: str, double: HistoryDouble) -> None:
    before = len(double.asked)
    path = f"/api/v1/vms/{uuid(3)}/history?metric=read_bytes&from=1700000000&to=1700003600&step=300"
    code, found = told(url, path)
    assert code == 200
    times = list(range(1_700_000_100, 1_700_003_601, 300))
    assert found == {
        "uuid": uuid(3),
        "metric": "read_bytes",
        "unit": "bytes_per_second",
        "step_seconds": 300,
        "times": times,
        "values": [None if at // 300 % 5 == 0 else at % 3_600 / 60 for at in times],
    }
    (asked,) = double.asked[before:]
    assert asked == {
        "path": "/prefix/api/v1/query_range",
        # The samples' interval is an hour here: a mean is of four of them.
        "query": f'sum(rate(vm_block_read_bytes_total{{uuid="{uuid(3)}"}}[14400s]))',
        "start": "1700000100",
        "end": "1700003400",
        "step": "300",
    }
    assert told(url, path) == (200, found)
    assert len(double.asked) == before + 1, "kept for a moment"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("metric=bogus", "metric"),
        ("from=0", "from"),
        ("from=200&to=100", "from"),
        ("from=1&to=1700000000", "from"),
        ("from=1600000000&to=1700000000&step=60", "from"),
        ("step=-1", "step"),
        ("x=1", "x"),
    ],
)
def test_bad_parameters_are_named_and_nobody_is_asked(url: str, double: HistoryDouble, query: str, parameter: str) -> None:
    before = len(double.asked)
    code, found = told(url, f"/api/v1/vms/{uuid(3)}/history?{query}")
    assert (code, found["error"]["parameter"]) == (400, parameter)
    assert get(f"{url}/vms/{uuid(3)}/history?range=bogus")[0] == 400
    assert len(double.asked) == before


def test_only_vms_that_are_shown_have_a_history(url: str, double: HistoryDouble) -> None:
    before = len(double.asked)
    assert told(url, "/api/v1/vms/nobody/history")[0] == 404
    assert get(f"{url}/vms/nobody/history")[0] == 404
    assert len(double.asked) == before


def test_a_page_of_a_vm_asks_nobody(url: str, double: HistoryDouble) -> None:
    """The history is asked once somebody has chosen how far back."""
    before = len(double.asked)
    for query in ("", "?range=week", "?range=bogus"):
        text = get(f"{url}/vms/{uuid(3)}{query}")[2].decode()
        assert f'href="/vms/{uuid(3)}/history?range=year"' in text
        assert ("data-load" in text) is (query == "?range=week")
    assert len(double.asked) == before


def test_the_charts_are_in_the_html(url: str) -> None:
    """A picture for each curve with its description, gaps left out, migrations marked, and all values in a table."""
    text = get(f"{url}/vms/{uuid(3)}/history?range=week")[2].decode()
    assert text.count('class="chart"') == len(CURVES)
    assert 'aria-current="true">1 week<' in text
    assert "Each value is the mean of the 2 h 0 min before it" in text
    (drawn, *_) = re.findall(r'aria-label="CPU cores: [^"]*"[^>]*>.*?<path d="([^"]+)"', text)
    assert drawn.count("M") > 5, "a line for each piece between two gaps"
    assert text.count("<tr data-key") > 60
    values = [json.loads(each) for each in re.findall(r'data-values="([^"]+)"', text)]
    start, step = (int(each) for each in re.search(r'data-start="(\d+)" data-step="(\d+)" data-marks="\[\]"', text).groups())  # type: ignore[union-attr]
    told = json.loads(get(f"{url}/api/v1/vms/{uuid(3)}/history?metric=cpu_cores&from={start}&to={start + 83 * step}&step={step}")[2])
    assert (len(values), step, len(values[0])) == (len(CURVES), 7_200, 84)
    assert values[0] == [None if value is None else pytest.approx(value, rel=1e-6) for value in told["values"]]
    assert "&lt;i&gt;" not in text
    assert "2023-11-14 22:13" not in text, "the migration was years before"


def test_without_a_setting_nothing_changes() -> None:
    with fleet() as mine:
        text = get(f"{mine}/vms/{uuid(3)}?range=week")[2].decode()
        assert "long-history" not in text
        assert get(f"{mine}/vms/{uuid(3)}/history")[0] == 404
        code, found = told(mine, f"/api/v1/vms/{uuid(3)}/history")
        assert (code, found["error"]["message"]) == (404, "no history server is named here: set exporter.history_url")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((401, b"name one project: the header X\n<script>"), "refuses: 401 name one project: the header X"),
        ((503, b'{"status":"error","errorType":"unavailable","error":"no PromQL engine here"}'), "answers 503: no PromQL engine here"),
        ((400, b"<html>"), "answers 400, and not in the words of Prometheus"),
        ((302, b"{}"), "answers 302: no result"),
        ((200, b'{"status":"success","data":{"result":[{"values":[[1,2]]}]}}'), "answers 200, and not in the words"),
        ((200, b'{"status":"success","data":{"result":[]},"warnings":["too <b>many</b>\\n samples"]}'), "too <b>many</b>  samples"),
        ((200, b" " * (1 << 21)), "answers with more than 1 MiB"),
    ],
    ids=["refused", "no engine", "html", "elsewhere", "wrong types", "warned", "large"],
)
def test_what_a_server_refuses_is_one_line(answer: Answer, why: str) -> None:
    """On the page, whole and escaped, and as the API's error; the page itself is good."""
    with history_double(lambda _: answer) as double, fleet(history_url=double.url) as mine:
        code, found = told(mine, f"/api/v1/vms/{uuid(3)}/history")
        assert code == 502
        assert why in found["error"]["message"]
        code, _, body = get(f"{mine}/vms/{uuid(3)}/history")
        assert code == 200
        assert f'<p class="missing">{html.escape(found["error"]["message"], quote=False)}</p>' in body.decode()
        assert all(asked["path"] == "/api/v1/query_range" for asked in double.asked), "no redirect is followed"


def test_a_server_that_is_away_is_one_line() -> None:
    # Not one that was let go of: the exporter may be given it for itself.
    (port,) = free_ports(1)
    with fleet(history_url=f"http://127.0.0.1:{port}") as mine:
        code, found = told(mine, f"/api/v1/vms/{uuid(3)}/history")
        assert code == 503
        assert "can't be asked" in found["error"]["message"]


def test_a_server_that_hangs_holds_up_nobody_else() -> None:
    """Other pages and the API answer while questions hang; then one line says so, and for a while nobody asks again."""
    with history_double(ramp) as double, fleet(history_url=double.url, history_timeout_seconds=2.0) as mine:
        double.hangs = True
        found: list[tuple[int, bytes]] = []

        def ask() -> None:
            code, _, body = get(f"{mine}/vms/{uuid(3)}/history?range=year")
            found.append((code, body))

        asking = threading.Thread(target=ask)
        asking.start()
        assert double.held.acquire(timeout=60)
        for path in (f"/vms/{uuid(3)}", "/", "/api/v1/vms", "/metrics"):
            assert get(f"{mine}{path}")[0] == 200
        asking.join(60)
        ((code, body),) = found
        assert code == 200
        assert b"has not answered" in body
        before = len(double.asked)
        assert before <= 4, "as many as may be under way"
        assert told(mine, f"/api/v1/vms/{uuid(4)}/history")[0] == 504
        assert len(double.asked) == before, "it is left alone for a moment"


def test_nobody_waits_for_a_history_while_the_exporter_stops() -> None:
    """A question that hangs does not hold up the end: it is answered at once."""
    found: list[int] = []
    with history_double(ramp) as double:
        double.hangs = True
        with fleet(history_url=double.url, history_timeout_seconds=300.0, request_timeout_seconds=600.0) as mine:
            asking = threading.Thread(target=lambda: found.append(get(f"{mine}/api/v1/vms/{uuid(3)}/history")[0]))
            asking.start()
            assert double.held.acquire(timeout=60)
        asking.join(60)
    assert found == [503]


def test_the_same_question_is_asked_once_at_a_time() -> None:
    with history_double(ramp) as double, fleet(history_url=double.url, history_timeout_seconds=5.0) as mine:
        release, path = threading.Event(), f"/api/v1/vms/{uuid(3)}/history?from=1700000000&to=1700003600"

        def slow(asked: Asked) -> Answer:
            release.wait(60)
            return ramp(asked)

        double.answer = slow
        codes: list[int] = []
        threads = [threading.Thread(target=lambda: codes.append(get(f"{mine}{path}")[0])) for _ in range(5)]
        for thread in threads:
            thread.start()
        while not double.asked:
            pass
        release.set()
        for thread in threads:
            thread.join(60)
        assert codes == [200] * 5
        assert len(double.asked) == 1


def test_who_asks_is_said_by_the_exporter_alone(tmp_path: Path) -> None:
    """A password, a token, and the VM's project; a VM without one is not asked for."""
    (tmp_path / "secret").write_text("s3cret\n")
    ways: list[tuple[dict[str, Any], str | None]] = [
        ({"history_username": "me", "history_password_file": str(tmp_path / "secret")}, "Basic bWU6czNjcmV0"),
        ({"history_token_file": str(tmp_path / "secret")}, "Bearer s3cret"),
        ({}, None),
    ]
    for settings, expected in ways:
        with history_double(ramp) as double, fleet(history_url=double.url, history_tenant_header="X-Project", **settings) as mine:
            assert told(mine, f"/api/v1/vms/{uuid(3)}/history")[0] == 200
            (headers,) = double.headers
            assert headers.get("Authorization") == expected
            assert headers["X-Project"] == described(3).project_id
    with history_double(ramp) as double:
        exporter = exporter_of(history_url=double.url, history_tenant_header="X-Project")
        exporter.take(lasting([described(1, platform="kubevirt", project="", project_id="", namespace="shop"), busy(1, 0)]))
        with served(exporter) as mine:
            assert told(mine, f"/api/v1/vms/{uuid(1)}/history")[0] == 200
        assert [headers["X-Project"] for headers in double.headers] == ["shop"]
    exporter = exporter_of(history_url="http://127.0.0.1:1", history_tenant_header="X-Project")
    exporter.take(lasting([busy(1, 0)]))
    with served(exporter) as mine:
        code, found = told(mine, f"/api/v1/vms/{uuid(1)}/history")
        assert (code, found["error"]["message"]) == (404, "the history is asked by project, and this VM has none that is known")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"history_url": "http://x", "history_token_file": "/nosuch"}, "exporter.history_token_file"),
        ({"history_url": "http://x", "history_username": "a:b"}, "exporter.history_username"),
        ({"history_url": "http://x", "history_username": "a", "history_token_file": "/x"}, "exporter.history_token_file"),
        ({"history_url": "https://x", "history_tls_ca_file": "/nosuch"}, "exporter.history_tls_ca_file"),
        ({"history_url": "https://x", "history_tls_ca_file": __file__}, "exporter.history_tls_ca_file"),
    ],
    ids=str,
)
def test_settings_that_can_not_be_used_are_named_at_the_start(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(SettingError) as raised:
        exporter_of(**settings)
    assert raised.value.key == key
    assert "pw" not in str(raised.value)
