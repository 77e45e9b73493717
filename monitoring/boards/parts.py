"""What the dashboards share: a board with its variables, links and annotations, and one function
for each kind of panel.

Every panel has a title, a unit and a sentence about what it shows. No data source is fixed: all
queries go to the one that the reader has chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import bargauge as bar_gauges
from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as forms
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

from inception_operator.contract.names import State
from monitoring.boards import queries
from monitoring.boards.queries import OF_JOB, job

TAG = "inception"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOKS = "docs/runbooks"
"""Where runbooks are found; the chart puts the address of metrics.rules.runbookUrl here."""
STATE_COLOURS: Mapping[str, str] = {
    State.FAILED: "red",
    State.REJECTED: "orange",
    State.PENDING: "yellow",
    State.STARTING: "light-blue",
    State.RESTARTING: "purple",
    State.RUNNING: "blue",
    State.SUSPENDED: "#8e8e8e",
    State.SUCCEEDED: "green",
}
JOB_LEGEND = "{{cluster}} {{namespace}}/{{name}}"
TRAINING_LEGEND = "{{cluster}} {{namespace}}/{{training}}"
Panel = Builder[models.Panel]
Limits = Sequence[tuple[float | None, str]]
"""From which value on a colour holds; the first one from anywhere."""
PLAIN: Limits = ((None, "text"),)


@dataclass(frozen=True)
class Query:
    """One query of a panel, and what its series are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class About:
    """What a panel says of itself; ``unit`` is one of Grafana's."""

    title: str
    description: str
    unit: str = "short"


def board(uid: str, title: str, description: str, variables: Iterable[str]) -> dashboard.Dashboard:
    """An empty dashboard whose reader chooses these variables, beside data source and cluster."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("30s")
        .link(_links_between_boards())
        .variables([_source_variable(), *(_VARIABLES[name]() for name in ("cluster", *variables))])
    )
    return made.annotation(_restarts()) if "job" in variables else made


def filled(
    made: dashboard.Dashboard, sections: Mapping[str, Iterable[Panel]]
) -> dashboard.Dashboard:
    """A dashboard with these panels below their headings; a heading ``""`` is none."""
    for title, panels in sections.items():
        if title:
            made.with_row(dashboard.Row(title))
        for panel in panels:
            made.with_panel(panel)
    return made


def graph(about: About, *wanted: Query, width: int = 8, stacked: bool = False) -> Panel:
    """Curves over time."""
    legend = common.VizLegendOptions().show_legend(True).placement(forms.LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(forms.TooltipDisplayMode.MULTI)
    panel = _described(timeseries.Panel(), about, wanted, width, 8)
    panel.legend(legend.display_mode(forms.LegendDisplayMode.LIST))
    panel.tooltip(tooltip.sort(forms.SortOrder.DESCENDING))
    panel.show_points(forms.VisibilityMode.NEVER).line_width(1)
    if stacked:
        panel.stacking(common.StackingConfig().mode(forms.StackingMode.NORMAL)).fill_opacity(60)
    return _made(panel)


def spread(
    title: str, description: str, buckets: str, labels: Sequence[str] = (), width: int = 8
) -> Panel:
    """Median and 95th percentile of seconds over time, from the growth of a histogram's buckets."""
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    return graph(
        About(title, description, "s"),
        Query(queries.quantile(0.5, labels, buckets), f"{legend} median".strip()),
        Query(queries.quantile(0.95, labels, buckets), f"{legend} 95 %".strip()),
        width=width,
    )


def figure(
    about: About,
    *wanted: Query,
    width: int = 4,
    limits: Limits = PLAIN,
    colours: Mapping[str, str] | None = None,
) -> Panel:
    """Large numbers of now, coloured by their value or, with ``colours``, by their name."""
    panel = _described(stat.Panel(), about, wanted, width, 5, instant=True)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.graph_mode(forms.BigValueGraphMode.NONE)
    panel.thresholds(_thresholds(limits))
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_colour(colour)])
    return _made(panel)


def state_figure(width: int = 4) -> Panel:
    """The state of each job now, in its colour."""
    about = About("State", "The state that each job is in now.")
    wanted = [Query(queries.state_number(), JOB_LEGEND)]
    panel = _described(stat.Panel(), about, wanted, width, 5, instant=True)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.graph_mode(forms.BigValueGraphMode.NONE).mappings([state_mapping()])
    return _made(panel)


def bars(about: About, *wanted: Query, width: int = 8) -> Panel:
    """A bar for each job, from 0 to 1."""
    panel = _described(bar_gauges.Panel(), about, wanted, width, 5, instant=True)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.orientation(forms.VizOrientation.HORIZONTAL).min(0).max(1)
    panel.thresholds(_thresholds(((None, "blue"), (1, "green"))))
    return _made(panel)


def states(width: int = 24) -> Panel:
    """The state of each job over time, in the colours of the states."""
    about = About(
        "States over time",
        "Which state each job was in. Gaps mean that the operator was not measured.",
    )
    wanted = [Query(queries.state_number(), JOB_LEGEND)]
    panel = _described(statetimeline.Panel(), about, wanted, width, 8)
    panel.mappings([state_mapping()]).fill_opacity(80).line_width(0)
    panel.show_value(forms.VisibilityMode.AUTO).merge_values(True)
    panel.legend(common.VizLegendOptions().show_legend(False))
    return _made(panel)


def table(
    about: About,
    columns: Sequence[tuple[str, str]],
    *,
    width: int = 24,
    height: int = 8,
    hidden: Sequence[str] = (),
    overrides: Mapping[str, Sequence[models.DynamicConfigValue]] | None = None,
) -> Panel:
    """A row for each set of labels, with a column for each of these names and expressions.

    Labels are columns of their own. A column without a name and those in ``hidden`` are left out.
    """
    wanted = [Query(expression) for _, expression in columns]
    panel = _described(tables.Panel(), about, wanted, width, height, instant=True, table=True)
    values = [f"Value #{letter}" for letter in "ABCDEFGHIJ"[: len(columns)]]
    if len(columns) == 1:
        values = ["Value"]
    names = dict(zip(values, (name for name, _ in columns), strict=True))
    unnamed = [value for value, name in names.items() if not name]
    order = {
        "excludeByName": dict.fromkeys(("Time", *unnamed, *hidden), True),
        "renameByName": {value: name for value, name in names.items() if name},
    }
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=order))
    for name, properties in (overrides or {}).items():
        panel.override_by_name(name, list(properties))
    return _made(panel)


def firing(*matchers: str, width: int = 24) -> Panel:
    """The alerts that fire now, each with a link to its runbook."""
    chosen = ", ".join(
        ('alertname=~"Inception.+"', 'alertstate="firing"', 'cluster=~"$cluster"', *matchers)
    )
    about = About(
        "Firing alerts",
        "Alerts of docs/alerts.md that fire now; empty when all is well, or when the rules are not "
        "installed. The name leads to the runbook.",
    )
    url = RUNBOOKS + "/${__data.fields.alertname}.md"
    return table(
        about,
        [("", f"ALERTS{{{chosen}}}")],
        width=width,
        height=6,
        hidden=("__name__", "alertstate"),
        overrides={"alertname": [link("Runbook", url)]},
    )


def link(title: str, url: str) -> models.DynamicConfigValue:
    """A link of a column."""
    return models.DynamicConfigValue("links", [{"title": title, "url": url}])


def unit(name: str) -> models.DynamicConfigValue:
    """The unit of a column."""
    return models.DynamicConfigValue("unit", name)


def job_link(board_uid: str, name: str) -> models.DynamicConfigValue:
    """A link to a dashboard about the job of a row, whose name is in the column ``name``."""
    # The choice of clusters goes along: a column that a row lacks would be taken by its letters.
    job_of_row = f"var-namespace=${{__data.fields.namespace}}&var-job=${{__data.fields.{name}}}"
    view = "${datasource:queryparam}&${cluster:queryparam}&${__url_time_range}"
    return link("This job alone", f"/d/{board_uid}?{view}&{job_of_row}")


def state_mapping() -> models.ValueMap:
    """Names and colours for the numbers of `queries.state_number`."""
    return models.ValueMap(
        {
            str(at): models.ValueMappingResult(text=state, color=STATE_COLOURS[state], index=at)
            for at, state in enumerate(queries.STATES)
        }
    )


def coloured_states() -> list[models.DynamicConfigValue]:
    """How a column of state numbers is shown."""
    return [
        models.DynamicConfigValue("mappings", [state_mapping()]),
        models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
    ]


def _described(
    panel: Any,
    about: About,
    wanted: Iterable[Query],
    width: int,
    height: int,
    *,
    instant: bool = False,
    table: bool = False,
) -> Any:
    # The library has a builder for each kind of panel and no type for what they share.
    panel.title(about.title).description(about.description).unit(about.unit).datasource(SOURCE)
    panel.no_value("no data").span(width).height(height)
    for letter, query in zip("ABCDEFGHIJ", wanted, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expression).datasource(SOURCE)
        target.legend_format(query.legend).editor_mode(QueryEditorMode.CODE)
        target.format(PromQueryFormat.TABLE if table else PromQueryFormat.TIME_SERIES)
        panel.with_target(target.instant() if instant else target.range())
    return panel


def _made(panel: Any) -> Panel:
    made: Panel = panel
    return made


def _thresholds(limits: Limits) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value, colour) for value, colour in limits]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _colour(name: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": name})


def _links_between_boards() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("Inception dashboards")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def _source_variable() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _label_variable(name: str, label: str, description: str, query: str) -> Any:
    every = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(every)
    )


def _cluster_variable() -> Any:
    query = "label_values(inception_operator_build_info, cluster)"
    about = "The label cluster, of a Prometheus over several; All also takes series without it."
    return _label_variable("cluster", "Cluster", about, query)


def _namespace_variable() -> Any:
    query = 'label_values(inception_operator_job_info{cluster=~"$cluster"}, namespace)'
    return _label_variable("namespace", "Namespace", "Namespaces of the jobs.", query)


def _job_variable() -> Any:
    chosen = 'cluster=~"$cluster", namespace=~"$namespace"'
    query = f"label_values(inception_operator_job_info{{{chosen}}}, name)"
    return _label_variable("job", "Job", "Names of the jobs.", query)


_VARIABLES = {
    "cluster": _cluster_variable,
    "namespace": _namespace_variable,
    "job": _job_variable,
}


class _Annotation(models.AnnotationQuery):
    """An annotation from Prometheus with a text: the library's knows those of Grafana alone."""

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {
            "titleFormat": "Restart",
            "textFormat": "{{namespace}}/{{name}}",
            "step": "15s",
        }


class _Restarts(Builder[models.AnnotationQuery]):
    def build(self) -> models.AnnotationQuery:
        changes = f"changes({job('restarts')}[$__rate_interval])"
        return _Annotation(
            name="Restarts",
            datasource=SOURCE,
            enable=True,
            icon_color="orange",
            expr=f"{queries.per('sum', OF_JOB, changes)} > 0",
        )


def _restarts() -> _Restarts:
    return _Restarts()
