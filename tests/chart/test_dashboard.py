"""Dashboards: valid PromQL over series that exist, and the habits that make a board usable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest

import dashboard
from exported_series import exported, selectors

PATHS = dashboard.paths()
COUNTERS = ("_total", "_bucket", "_sum", "_count")
# The operator of a cluster is one: its own health is not chosen by namespace or job.
CLUSTER_WIDE = re.compile(
    r"inception_operator_(?!job_(info|state|restarts|progress|accuracy|samples))"
)


QUERIES = [query for path in PATHS for query in dashboard.queries(path)]
CHOICES = [query for path in PATHS for query in dashboard.variable_selectors(path)]


def test_there_are_dashboards() -> None:
    assert [path.stem for path in PATHS] == ["inception-jobs"]
    assert len(QUERIES) > 25
    assert len(CHOICES) == 3


@pytest.mark.parametrize(
    "query", [*QUERIES, *CHOICES], ids=lambda query: f"{query.panel}: {query.raw[:40]}"
)
def test_queries_are_valid_and_about_series_that_exist(query: dashboard.Query) -> None:
    tree = promql_parser.parse(query.expression)
    names = {selector.name for selector in selectors(tree)}
    assert names, "no series found"
    assert names <= exported()


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.panel}: {query.raw[:40]}")
def test_queries_keep_the_habits(query: dashboard.Query) -> None:
    for name in re.findall(r"((?:inception_operator|trainer)_\w+)", query.raw):
        if name.endswith(COUNTERS):
            assert re.search(
                rf"(?:rate|increase)\({name}(?:{{[^}}]*}})?\[\$__rate_interval\]\)", query.raw
            ), name
        if name.startswith("trainer_"):
            assert re.search(rf'{name}{{namespace=~"\$namespace", training=~"\$job"', query.raw), (
                name
            )
        elif not CLUSTER_WIDE.match(name):
            assert re.search(rf'{name}{{namespace=~"\$namespace", name=~"\$job"', query.raw), name


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.stem))
def test_the_board_keeps_the_habits(path: Path) -> None:
    board = dashboard.load(path)
    assert board["editable"] is False
    assert board["id"] is None
    assert board["uid"] == path.stem
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert set(variables) == {"datasource", "namespace", "job"}
    assert variables["datasource"]["type"] == "datasource"
    for name in ("namespace", "job"):
        assert variables[name]["refresh"] == 2, "choices follow the time range"
        assert variables[name]["multi"] is variables[name]["includeAll"] is True


@pytest.mark.parametrize(
    "panel",
    [panel for path in PATHS for panel in dashboard.panels(dashboard.load(path))],
    ids=lambda panel: str(panel["title"]),
)
def test_panels_say_what_they_show(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert re.fullmatch(r"[A-Z0-9].*\.", panel["description"])
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["type"] != "graph", "deprecated"
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.stem))
def test_panels_do_not_overlap_and_have_ids_of_their_own(path: Path) -> None:
    cells: set[tuple[int, int]] = set()
    panels = dashboard.load(path)["panels"]
    for panel in panels:
        place = panel["gridPos"]
        own = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & own, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_unknown_variables_are_an_error() -> None:
    with pytest.raises(KeyError):
        dashboard.substitute("up{a='$unheard'}")
    assert (
        dashboard.substitute(
            "a[$__rate_interval] ${job:regex}", {"__rate_interval": "2m", "job": "x"}
        )
        == "a[2m] x"
    )
