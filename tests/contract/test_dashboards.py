"""The dashboards: Grafana's own models read the files, Prometheus the queries; links lead somewhere, and values are escaped."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.contract.test_deploy import ALERTS, unknown_names
from tests.support.dashboards import FILES, filled, queries, read
from tests.support.prometheus import check_rule_tests
from tools.dashboards.catalogue import boards
from tools.dashboards.links import DOCS
from tools.dashboards.promql import PLANNED, UNPLANNED, entered
from virtflow.schemas import states

ROOT = Path(__file__).resolve().parents[2]
PROVISIONED = ROOT / "deploy" / "container" / "grafana"
PLAIN = {"node": ".*", "project": ".*", "uuid": "x", "__rate_interval": "1m", "__interval": "1m", "__range": "1h", "__range_s": "3600"}
"""A value for each of Grafana's variables."""
OURS = ("__inputs", "__elements", "__requires")
"""What an export has beside the dashboard."""
each_file = pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)


def panels(file: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, without the rows between them."""
    return [panel for panel in read(file)["panels"] if panel["type"] != "row"]


def variables(file: Path) -> dict[str, dict[str, Any]]:
    """The choices above a dashboard's panels, by name."""
    return {variable["name"]: variable for variable in read(file)["templating"]["list"]}


def links(file: Path) -> list[str]:
    """Every URL of a dashboard, of its panels and of their values and columns."""
    found = [link["url"] for link in read(file)["links"] if link["type"] == "link"]
    for panel in panels(file):
        found += [link["url"] for link in panel.get("links", [])]
        found += [link["url"] for link in panel["fieldConfig"]["defaults"].get("links", [])]
        properties = [one for override in panel["fieldConfig"]["overrides"] for one in override["properties"]]
        found += [link["url"] for one in properties if one["id"] == "links" for link in one["value"]]
    return found


def test_every_file_is_one_of_the_dashboards() -> None:
    """A file whose definition is gone is gone, too."""
    assert {file.stem for file in FILES} == {board.name for board in boards()}
    assert {"fleet", "vm", "migrations", "service-level", "node-pressure", "consumers", "pipeline"} == {file.stem for file in FILES}


@each_file
def test_grafanas_own_models_read_the_file(file: Path) -> None:
    """Nothing in it is unknown to them: read and written again, it is the same."""
    board = {key: value for key, value in read(file).items() if key not in OURS}
    again = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    assert again == board


@each_file
def test_dashboards_ask_for_what_exists(file: Path, tmp_path: Path) -> None:
    """Every query is one that Prometheus can read, over names of the catalogue or of the recording rules."""
    asked = list(queries(file))
    assert len(asked) > 15
    for query in asked:
        assert unknown_names(query.promql) == set(), query
    rules = [{"record": f"query_{number}", "expr": filled(query.promql, PLAIN)} for number, query in enumerate(asked)]
    check_rules(rules, tmp_path / "rules.yml")


def check_rules(rules: list[dict[str, str]], file: Path) -> None:
    """Fails with promtool's own complaint."""
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_file
def test_values_of_choices_are_escaped(file: Path) -> None:
    """Grafana escapes a choice of several as a regular expression, and a choice of one as text: each stands where that is right."""
    several = {name for name, one in variables(file).items() if one.get("multi") or one.get("includeAll")}
    used = set()
    for query in queries(file):
        for operator, value in re.findall(r'(=~|!~|!=|=) *"([^"]*\$[^"]*)"', query.promql):
            match = re.fullmatch(r"\$(\w+)", value)
            assert match, f"{query}: only a whole value is escaped"
            used.add(match[1])
            assert (operator == "=~") == (match[1] in several), query
        assert set(re.findall(r"\$(\w+)", query.promql)) <= {*variables(file), *PLAIN}, query
    assert used == set(variables(file)) - {"datasource", "docs"}
    assert all(variables(file)[name]["allValue"] == ".*" for name in several)


@each_file
def test_the_data_source_is_the_chosen_one(file: Path) -> None:
    """Asked for at an import, the variable's first value; every query takes the variable's."""
    board = read(file)
    (asked,) = board["__inputs"]
    assert (asked["type"], asked["pluginId"]) == ("datasource", "prometheus")
    source = variables(file)["datasource"]
    assert (source["type"], source["query"], source["current"]["value"]) == ("datasource", "prometheus", f"${{{asked['name']}}}")
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == wanted for panel in panels(file) for target in panel["targets"])
    assert all(panel["datasource"] == wanted for panel in panels(file))
    assert all(one["datasource"] == wanted for one in variables(file).values() if one["type"] == "query")
    text = file.read_text()
    assert text.count(asked["name"]) == 3, "nothing but the input itself and the variable's first value depends on the import"


def test_what_is_provisioned_is_found() -> None:
    """The compose file's Grafana has one Prometheus, which it takes as it has no other, and reads the folder of the files."""
    sources = yaml.safe_load((PROVISIONED / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert [source["type"] for source in sources] == ["prometheus"]
    (provider,) = yaml.safe_load((PROVISIONED / "dashboards" / "virtflow.yml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    assert f"./deploy/grafana:{provider['options']['path']}:ro" in compose["volumes"]
    home = compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in {f"{provider['options']['path']}/{file.name}" for file in FILES}


@each_file
def test_panels_are_in_their_places(file: Path) -> None:
    """They do not overlap and do not leave the grid, each has a number of its own, a unit for its numbers, and says what it shows."""
    every = read(file)["panels"]
    cells = [
        (x, y)
        for panel in every
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert [panel["id"] for panel in every] == list(range(1, len(every) + 1))
    for panel in panels(file):
        assert panel["description"].partition("\n")[0], panel["title"]
        assert panel["type"] in {"table", "state-timeline"} or panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@each_file
def test_graphs_that_join_every_vm_have_few_points(file: Path) -> None:
    """A graph as wide as a screen would ask for three times as many, each a join of the whole fleet."""
    for panel in panels(file):
        if panel["type"] == "timeseries":
            joins = any("vm_info{" in target["expr"] for target in panel["targets"])
            assert panel.get("maxDataPoints") == (240 if joins else None), panel["title"]


@each_file
def test_descriptions_say_what_metrics_mean(file: Path) -> None:
    """The catalogue's help of each metric in a panel's queries; how a VM is chosen is not explained each time."""
    for panel in panels(file):
        names = {
            name
            for target in panel["targets"]
            for name in re.findall(r"(?<![\w:])(?:vm|virtflow)_\w+(?![\w:])", re.sub(r'"[^"]*"', "", target["expr"]))
        }
        for name in names - {"vm_info"}:
            assert f"- `{name}`: " in panel["description"], panel["title"]


@each_file
def test_links_lead_somewhere(file: Path) -> None:
    """To a dashboard that there is, with choices that it has, or to a page of this repository."""
    known = {f"virtflow-{path.stem}": path for path in FILES}
    assert links(file)
    for url in links(file):
        page = re.fullmatch(r"\$\{docs:raw\}/(.+)", url)
        if page:
            names = ALERTS if "${__value.raw}" in page[1] else [""]
            assert all((ROOT / "docs" / page[1].replace("${__value.raw}", name)).is_file() for name in names), url
            continue
        match = re.fullmatch(r"/d/([\w-]+)/\1\?var-(\w+)=\$\{__\w+(?:\.\w+)+\}&\$\{datasource:queryparam\}&\$\{__url_time_range\}", url)
        assert match, url
        assert match[2] in variables(known[match[1]]), url
    assert variables(file)["docs"]["query"] == DOCS


def test_a_vm_leads_to_its_dashboard() -> None:
    """From the fleet, its uuid goes along: from a line of a graph, and from a row of a table."""
    wanted = "/d/virtflow-vm/virtflow-vm?var-uuid="
    for stem in ("fleet", "consumers", "migrations", "service-level"):
        (file,) = (path for path in FILES if path.stem == stem)
        assert any(url.startswith(wanted) for url in links(file)), stem
    assert all(variables(file)["uuid"]["regex"] for file in FILES if "uuid" in variables(file))


def test_a_vms_name_and_uuid_are_found_in_its_series() -> None:
    """The expression that makes a choice of what Prometheus answers, with labels around it that look alike."""
    (file,) = (path for path in FILES if path.stem == "vm")
    pattern = variables(file)["uuid"]["regex"].strip("/").replace("(?<", "(?P<")
    series = (
        'vm_info{flavor="m1", instance="e:9177", job="virtflow", name="web-1", node="n", platform_name="other", uuid="0-1"} 1 1790000000000'
    )
    found = re.search(pattern, series)
    assert found is not None
    assert found.groupdict() == {"text": "web-1", "value": "0-1"}


def test_runbooks_of_panels_are_those_of_alerts() -> None:
    """Every critical alert has a panel that leads to its page, but for those of targets that are gone: no panel is left then."""
    urls = {url for file in FILES for url in links(file)}
    named = {match[1] for url in urls if (match := re.search(r"runbooks/(Virtflow\w+)\.md", url))}
    critical = {name for name, rule in ALERTS.items() if rule["labels"]["severity"] == "critical"}
    assert critical - named == {"VirtflowExporterDown", "VirtflowProcessorsDown"}
    assert named <= set(ALERTS)


def test_stops_are_planned_or_not_and_never_both() -> None:
    """Every state and reason that libvirt knows in which a VM stands still, sorted as people would."""
    unplanned = {(state, reason) for state, reason in stopped() if any(matches(one, state, reason) for one in UNPLANNED)}
    planned = {(state, reason) for state, reason in stopped() if any(matches(one, state, reason) for one in PLANNED)}
    assert unplanned == {
        *(("crashed", reason) for reason in ("unknown", "panicked")),
        *(("shut_off", reason) for reason in ("crashed", "failed", "daemon")),
        *(("paused", reason) for reason in ("io_error", "watchdog", "crashed", "postcopy_failed", "api_error")),
    }
    assert planned == {("shut_off", reason) for reason in ("unknown", "shutdown", "destroyed", "saved", "from_snapshot")}


def stopped() -> set[tuple[str, str]]:
    """Every state with each of its reasons, in words."""
    return {
        (states.state_word(state), states.reason_word(state, number))
        for state, words in states.REASONS.items()
        for number in range(len(words))
    }


def matches(selector: str, state: str, reason: str) -> bool:
    """Whether a series with this state and reason would be selected."""
    wanted = {"state": state, "reason": reason}
    tests = re.findall(r'(\w+)(=~|!~|=)"([^"]*)"', selector)
    assert tests
    return all((re.fullmatch(value, wanted[label]) is None) == (operator == "!~") for label, operator, value in tests)


STOPS = {
    'vm_info{uuid="u", node="n"}': "1x20",
    'vm_info{uuid="v", node="n"}': "1x20",
    'vm_info{uuid="w", node="n"}': "_ _ _ _ _ _ 1x14",
    'vm_state_info{uuid="u", state="running", reason="booted"}': "1x3 stale",
    'vm_state_info{uuid="u", state="shut_off", reason="crashed"}': "_ _ _ _ 1x3 stale",
    'vm_state_info{uuid="u", state="crashed", reason="panicked"}': "_ _ _ _ _ _ _ _ 1x12",
    'vm_state_info{uuid="v", state="running", reason="booted"}': "1x5 stale",
    'vm_state_info{uuid="v", state="shut_off", reason="shutdown"}': "_ _ _ _ _ _ 1x14",
    'vm_state_info{uuid="w", state="shut_off", reason="failed"}': "_ _ _ _ _ _ 1x14",
}
"""A VM that crashes at 4 min, another that is shut down at 6 min, and one that is seen for the first time then, long after it failed."""


def test_a_stop_is_counted_once_and_only_where_it_was_seen(tmp_path: Path) -> None:
    """At the point after it; a crash that is known more exactly later is the same one, and a VM that was not known before did not stop now."""
    values = {**PLAIN, "__interval": "1m"}
    unplanned = filled(f"sum(count by (state, reason) ({entered(UNPLANNED)}))", values)
    planned = filled(f"sum(count by (state, reason) ({entered(PLANNED)}))", values)
    found = {"unplanned": {4: 1}, "planned": {6: 1}}
    cases = [
        {
            "expr": promql,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": found[kind][minute]}] if minute in found[kind] else [],
        }
        for kind, promql in (("unplanned", unplanned), ("planned", planned))
        for minute in range(1, 15)
    ]
    test = {"interval": "1m", "input_series": [{"series": name, "values": text} for name, text in STOPS.items()], "promql_expr_test": cases}
    file = tmp_path / "stops.yml"
    file.write_text(json.dumps({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))
    check_rule_tests(file)


def test_the_oldest_grafana_is_the_librarys() -> None:
    """The files say which Grafana they were made for, and so does the compatibility page; the compose file's is not older."""
    found = re.search(r"^grafana-foundation-sdk==\d+!(\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert found is not None
    required = {one["version"] for file in FILES for one in read(file)["__requires"] if one["type"] == "grafana"}
    assert required == {found[1]}
    assert f"with the schemas of {found[1].removesuffix('.0')} " in (ROOT / "docs" / "compatibility.md").read_text()
    image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["image"]
    assert tuple(map(int, image.partition(":")[2].split("."))) >= tuple(map(int, found[1].split(".")))
