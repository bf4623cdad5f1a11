"""Panels as the dashboards need them: numbers, graphs, tables and a VM's states over time.

A panel's description ends with what the metrics in its queries mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Final, NamedTuple, TypeVar

from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, StackingConfig, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tools.dashboards.links import to_runbook
from tools.dashboards.promql import meaning
from tools.dashboards.variables import SOURCE
from virtflow.schemas import states

Panel = stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel
AnyPanel = TypeVar("AnyPanel", stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)
STAT: Final = 4
HALF: Final = 12
WHOLE: Final = 24
"""Columns of the grid of 24 that a panel takes."""
JOINED_POINTS: Final = 240
"""Points of a graph that looks up each VM's hypervisor and project at every one of them: among 10,000 VMs a point takes 0.1 s."""


class Query(NamedTuple):
    """What a graph asks, and how a series is called: ``{{label}}`` stands for a label's value."""

    promql: str
    legend: str = "__auto"


class Text(NamedTuple):
    """What stands in a panel's head: its title, what it shows, and the alerts whose runbooks it links to."""

    title: str
    about: str
    alerts: tuple[str, ...] = ()


class Column(NamedTuple):
    """A column of numbers: its name, its query and its unit."""

    name: str
    promql: str
    unit: str = "short"


def number(text: Text, promql: str, unit: str = "short", *, alarm: float | None = None, width: int = STAT) -> Panel:
    """The newest value, red from ``alarm`` on; of several series, one beside the other."""
    return numbers(text, [Query(promql)], unit, alarm=alarm, width=width)


def numbers(text: Text, queries: Sequence[Query], unit: str = "short", *, alarm: float | None = None, width: int = STAT) -> Panel:
    """The newest value of each series of each query."""
    steps = [Threshold(color="green")] + ([] if alarm is None else [Threshold(value=alarm, color="red")])
    panel = stat.Panel().unit(unit).thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    panel = panel.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    panel = panel.graph_mode(common.BigValueGraphMode.NONE).color_mode(common.BigValueColorMode.VALUE)
    return _placed(panel, text, [query.promql for query in queries]).span(width).height(4).targets([*_targets(queries, instant=True)])


class Style(NamedTuple):
    """How a graph is drawn: its unit, whether its series are stacked, or are counts that the legend adds up, and where a series links to."""

    unit: str = "short"
    stacked: bool = False
    bars: bool = False
    link: DashboardLink | None = None


def graph(text: Text, queries: Sequence[Query] | str, style: Style = Style(), *, width: int = HALF) -> Panel:  # noqa: B008, never changed
    """Lines over time; a single query may be given as text."""
    asked = [Query(queries)] if isinstance(queries, str) else list(queries)
    panel = timeseries.Panel().unit(style.unit).min(0).line_width(1).fill_opacity(40 if style.stacked or style.bars else 10)
    panel = panel.show_points(common.VisibilityMode.NEVER).span_nulls(False)  # noqa: FBT003, the library's own
    if style.stacked or style.bars:
        panel = panel.stacking(StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if style.bars:
        panel = panel.draw_style(common.GraphDrawStyle.BARS)
    if any("vm_info{" in query.promql for query in asked):
        panel = panel.max_data_points(JOINED_POINTS)
    if style.link is not None:
        panel = panel.data_links([style.link])
    legend = VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.LIST)  # noqa: FBT003, the library's own
    panel = panel.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs(["sum"] if style.bars else []))
    panel = panel.tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    return _placed(panel, text, [query.promql for query in asked]).span(width).height(8).targets([*_targets(asked)])


def by_label(text: Text, columns: Sequence[Column], links: Mapping[str, DashboardLink], *, height: int = 9) -> Panel:
    """A table with a line for each set of labels: all queries must have the same labels and no metric's name. ``links`` by column."""
    steps = [_step("merge", {}), _step("organize", {"excludeByName": {"Time": True}, "renameByName": _named(columns)})]
    return _numbered(text, columns, steps, links, height)


def by_vm(text: Text, words: Sequence[str], columns: Sequence[Column], links: Mapping[str, DashboardLink], *, height: int = 10) -> Panel:
    """A table with a line for each VM: ``words`` are labels of the first query that are shown; a column without a name has no numbers."""
    named = _named(columns)
    kept = "|".join(["name 1", "name", "uuid", *words, *named])
    steps = [
        _step("joinByField", {"byField": "uuid", "mode": "outer"}),
        _step("filterFieldsByName", {"include": {"pattern": f"^({kept})$"}}),
        _step("organize", {"renameByName": named}),
    ]
    return _numbered(text, columns, steps, links, height)


def _named(columns: Sequence[Column]) -> dict[str, str]:
    """What Grafana calls the columns of numbers, and what they are called here."""
    return {f"Value #{letter}": column.name for letter, column in zip(ascii_uppercase, columns, strict=False) if column.name}


def _numbered(
    text: Text, columns: Sequence[Column], steps: Sequence[DataTransformerConfig], links: Mapping[str, DashboardLink], height: int
) -> Panel:
    panel = table.Panel().show_header(True).transformations(list(steps))  # noqa: FBT003, the library's own
    for column in columns:
        if column.name:
            panel = panel.override_by_name(column.name, [DynamicConfigValue(id_val="unit", value=column.unit)])
    return _table(panel, text, [column.promql for column in columns], links, height)


def labels(text: Text, promql: str, hidden: Sequence[str], links: Mapping[str, DashboardLink], *, height: int = 4) -> Panel:
    """A table of the labels of what is found; ``hidden`` are left out beside those that say nothing."""
    excluded = dict.fromkeys(["Time", "Value", "__name__", "job", "instance", *hidden], True)
    panel = table.Panel().show_header(True).overrides([])  # noqa: FBT003, the library's own
    panel = panel.transformations([_step("organize", {"excludeByName": excluded})])
    return _table(panel, text, [promql], links, height)


def _table(panel: table.Panel, text: Text, queries: Sequence[str], links: Mapping[str, DashboardLink], height: int) -> table.Panel:
    for column, link in links.items():
        shown = {"title": link.build().title, "url": link.build().url, "targetBlank": bool(link.build().target_blank)}
        panel = panel.override_by_name(column, [DynamicConfigValue(id_val="links", value=[shown])])
    asked = [Query(promql) for promql in queries]
    placed = _placed(panel, text, queries).span(WHOLE).height(height)
    return placed.targets([target.format(PromQueryFormat.TABLE) for target in _targets(asked, instant=True)])


def timeline(text: Text, query: Query) -> Panel:
    """The states of a VM over time, from libvirt's numbers."""
    words = {str(value): ValueMappingResult(text=word, color=_COLOURS.get(word, "gray")) for value, word in enumerate(states.STATES)}
    panel = statetimeline.Panel().mappings([ValueMap(options=words)]).show_value(common.VisibilityMode.NEVER)
    return _placed(panel, text, [query.promql]).span(WHOLE).height(5).targets([*_targets([query])])


_COLOURS: Final = {"running": "green", "blocked": "green", "paused": "yellow", "crashed": "red"}


def _placed(panel: AnyPanel, text: Text, queries: Sequence[str]) -> AnyPanel:
    parts = [text.about, meaning(queries)]
    panel = panel.title(text.title).description("\n\n".join(filter(None, parts))).datasource(SOURCE)
    return panel.links([to_runbook(alert) for alert in text.alerts]) if text.alerts else panel


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[Dataquery]:
    targets = []
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        target = Dataquery().expr(query.promql).ref_id(letter).legend_format(query.legend).datasource(SOURCE)
        targets.append(target.instant() if instant else target.range())
    return targets


def _step(name: str, options: Mapping[str, object]) -> DataTransformerConfig:
    return DataTransformerConfig(id_val=name, options=options)
