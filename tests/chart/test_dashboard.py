"""Dashboards: made from code, about series that exist, with the habits that make a board usable."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import alert_rules
import dashboard
from chart_values import Render, of_kind
from exported_series import labels, nodes, selectors
from inception_operator.contract.names import State
from monitoring import generate_dashboards
from monitoring.boards.parts import RUNBOOKS, STATE_COLOURS
from monitoring.boards.queries import STATES
from staged_series import StagedPrometheus

PATHS = dashboard.paths()
PANELS = [panel for path in PATHS for panel in dashboard.panels(dashboard.load(path))]
COUNTERS = ("_total", "_bucket", "_sum", "_count")
# Counters that a job carries over its attempts: their level is what one wants to see.
LEVELS = {"trainer_repeated_steps_total", "trainer_checkpoint_failures_total"}
# What the scrape adds to a page.
OF_TARGETS = frozenset({"cluster", "namespace", "pod", "job", "instance"})
OF_TRAINERS = OF_TARGETS | {"training", "slot"}
OF_OTHERS = {
    "ALERTS": OF_TRAINERS | {"alertname", "alertstate"},
    "process_resident_memory_bytes": OF_TARGETS,
    "process_cpu_seconds_total": OF_TARGETS,
    "process_open_fds": OF_TARGETS,
}
DEVICES = OF_TRAINERS | {"device", "accelerator"}
RECORDED = {rule["record"]: DEVICES for rule in alert_rules.rules() if "record" in rule}
BY_BOARD = pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.stem))


def labels_of(name: str) -> frozenset[str]:
    """The labels that a series may have; raises KeyError for a series that nobody exports."""
    if name in OF_OTHERS or name in RECORDED:
        return frozenset((OF_OTHERS | RECORDED)[name])
    more = OF_TRAINERS if name.startswith("trainer_") else OF_TARGETS
    return labels()[name] | more | ({"le"} if name.endswith("_bucket") else set())


def labels_asked_for(tree: Any) -> Iterator[tuple[str, set[str]]]:
    """Each label that an expression sums by or joins on, with those that are there."""
    for part in nodes(tree):
        there = {label for selector in selectors(part) for label in labels_of(selector.name)}
        modifier = getattr(part, "modifier", None)
        matching = getattr(modifier, "matching", modifier)
        for label in getattr(matching, "labels", None) or ():
            yield label, there


def test_the_files_are_what_the_code_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate_dashboards.main(["--check"]) == 0, capsys.readouterr().out


def test_drift_is_found_and_repaired(tmp_path: Path) -> None:
    assert len(generate_dashboards.sync(tmp_path, write=True)) == 6
    assert generate_dashboards.sync(tmp_path, write=False) == []
    (tmp_path / "inception-job.json").write_text("{}")
    (tmp_path / "left-over.json").write_text("{}")
    wrong = ["inception-job.json", "left-over.json"]
    assert generate_dashboards.sync(tmp_path, write=False) == wrong
    assert generate_dashboards.sync(tmp_path, write=True) == wrong
    assert generate_dashboards.sync(tmp_path, write=False) == []


@BY_BOARD
def test_nothing_is_outside_of_the_published_types(path: Path) -> None:
    board = dashboard.load(path)
    for annotation in board["annotations"].get("list", []):
        # Those of the plug-in for Prometheus, which the types of a dashboard leave open.
        for key in ("titleFormat", "textFormat", "step"):
            annotation.pop(key)
    again = JSONEncoder(sort_keys=True, indent=2).encode(Dashboard.from_json(board))
    assert json.loads(again) == board


@BY_BOARD
def test_queries_are_about_series_and_labels_that_exist(path: Path) -> None:
    for query in (*dashboard.queries(path), *dashboard.variable_selectors(path)):
        tree = promql_parser.parse(query.expression)
        found = list(selectors(tree))
        assert found, query.panel
        for selector in found:
            asked = {matcher.name for matcher in selector.matchers.matchers}
            assert asked <= labels_of(selector.name), (query.panel, selector.name)
        for label, there in labels_asked_for(tree):
            assert label in there, (query.panel, label)


def test_an_unknown_series_or_label_is_found() -> None:
    with pytest.raises(KeyError):
        labels_of("trainer_los")
    tree = promql_parser.parse('max by (cluster, slott) (trainer_loss{training="x"})')
    assert [label for label, there in labels_asked_for(tree) if label not in there] == ["slott"]


@BY_BOARD
def test_queries_take_the_clusters_and_jobs_that_were_chosen(path: Path) -> None:
    for query in dashboard.queries(path):
        chosen = re.findall(r"([\w:]+)\{([^}]*)\}", query.raw)
        assert chosen, query.panel
        for name, matchers in chosen:
            assert 'cluster=~"$cluster"' in matchers, (query.panel, name)
            if name.startswith(("trainer_", "namespace_")):
                assert 'training=~"$job"' in matchers, (query.panel, name)
            if 'name=~"$job"' in matchers or 'training=~"$job"' in matchers:
                assert 'namespace=~"$namespace"' in matchers, (query.panel, name)


@BY_BOARD
def test_curves_keep_clusters_and_namespaces_apart(path: Path) -> None:
    for query in dashboard.queries(path):
        for part in nodes(promql_parser.parse(query.expression)):
            modifier = getattr(part, "modifier", None)
            kept = set(getattr(modifier, "labels", None) or ())
            if isinstance(part, promql_parser.AggregateExpr) and kept & {"name", "training", "pod"}:
                assert {"cluster", "namespace"} <= kept, (query.panel, str(modifier))


@BY_BOARD
def test_counters_are_shown_as_rates_or_events(path: Path) -> None:
    window = r"\[\$__(?:rate_interval|range)\]\)"
    for query in dashboard.queries(path):
        for name in re.findall(r"(?:inception_operator|trainer|process)_\w+", query.raw):
            if name.endswith(COUNTERS) and name not in LEVELS:
                growing = re.search(rf"(?:rate|increase)\({name}(?:{{[^}}]*}})?{window}", query.raw)
                events = f"clamp_min({name}" in query.raw and "offset $__interval" in query.raw
                assert growing or events, (query.panel, name)


@BY_BOARD
def test_the_board_keeps_the_habits(path: Path) -> None:
    board = dashboard.load(path)
    assert board["editable"] is False
    assert "id" not in board
    assert board["uid"] == path.stem
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    expected = ["datasource", "cluster", "namespace", "job"]
    assert list(variables) == (expected[:2] if path.stem == "inception-operator" else expected)
    assert variables["datasource"]["type"] == "datasource"
    for name in list(variables)[1:]:
        assert variables[name]["refresh"] == 2, "choices follow the time range"
        assert variables[name]["multi"] is variables[name]["includeAll"] is True
    (links,) = board["links"]
    assert links["tags"] == board["tags"]
    assert links["includeVars"] is links["keepTime"] is True
    restarts = [annotation["name"] for annotation in board["annotations"].get("list", [])]
    assert restarts == (["Restarts"] if "job" in variables else [])


def test_boards_have_names_of_their_own_and_links_lead_to_boards() -> None:
    boards = {path.stem: dashboard.load(path) for path in PATHS}
    assert len({board["title"] for board in boards.values()}) == len(boards) == 6
    text = "".join(path.read_text(encoding="utf-8") for path in PATHS)
    assert set(re.findall(r'"/d/([\w-]+)\?', text)) == {"inception-job"} <= set(boards)
    names = re.findall(rf"{RUNBOOKS}/([^\"]+)", text)
    assert set(names) == {"${__data.fields.alertname}.md"}


@BY_BOARD
def test_panels_say_what_they_show(path: Path) -> None:
    for panel in dashboard.panels(dashboard.load(path)):
        assert panel["title"]
        assert re.fullmatch(r"[A-Z0-9].*\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["type"] != "graph", "deprecated"
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


@BY_BOARD
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
    titles = Counter(panel["title"] for panel in panels)
    assert titles.most_common(1)[0][1] == 1, titles


def test_every_state_has_its_colour_and_failed_alone_is_red() -> None:
    states = {value for key, value in vars(State).items() if key.isupper()}
    assert set(STATE_COLOURS) == set(STATES) == states
    assert len(set(STATE_COLOURS.values())) == len(states)
    assert STATE_COLOURS[State.FAILED] == "red"
    mappings = [
        panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
        for panel in PANELS
        if panel["title"] in {"States over time", "State"}
    ]
    assert len(mappings) == 3
    for mapping in mappings:
        shown = {entry["text"]: entry["color"] for entry in mapping.values()}
        assert shown == dict(STATE_COLOURS)


def test_unknown_variables_are_an_error() -> None:
    with pytest.raises(KeyError):
        dashboard.substitute("up{a='$unheard'}")
    assert (
        dashboard.substitute(
            "a[$__rate_interval] ${job:regex}", {"__rate_interval": "2m", "job": "x"}
        )
        == "a[2m] x"
    )


@BY_BOARD
@pytest.mark.parametrize("cluster", [".*", "b"], ids=["all clusters", "one cluster"])
def test_every_panel_has_data(staged: StagedPrometheus, path: Path, cluster: str) -> None:
    chosen = {"cluster": cluster, "namespace": "team", "job": "digits"}
    for query in dashboard.queries(path, chosen):
        result = staged.query(query.expression)
        assert result, f"{query.panel}: {query.expression}"
        clusters = {series["metric"].get("cluster") for series in result} - {None}
        assert clusters <= ({"b"} if cluster == "b" else {"a", "b"}), query.panel


@BY_BOARD
def test_every_variable_has_choices(staged: StagedPrometheus, path: Path) -> None:
    for query in dashboard.variable_selectors(path):
        # Restarts are marked where there are some.
        assert staged.query(query.expression) or query.panel == "Restarts", query.panel


def test_the_number_of_a_state_is_its_place(staged: StagedPrometheus) -> None:
    (shown,) = {
        query.expression
        for query in dashboard.queries(PATHS[0].with_name("inception-job.json"), {"cluster": "a"})
        if query.panel == "State"
    }
    (series,) = staged.query(shown)
    assert STATES[int(series["value"][1])] == State.RUNNING


def test_what_a_healthy_run_cannot_show_are_panels() -> None:
    titles = {panel["title"] for panel in PANELS}
    assert titles >= dashboard.FAULTS | dashboard.DEVICES
    assert len(dashboard.of_a_healthy_run()) > 80


def test_the_chart_has_a_config_map_for_each_board(render: Render) -> None:
    maps = [
        item for item in of_kind(render(), "ConfigMap") if "-inception-" in item["metadata"]["name"]
    ]
    made = {name: text for item in maps for name, text in item["data"].items()}
    wanted = {path.name: path.read_text(encoding="utf-8").strip() for path in PATHS}
    assert {name: text.strip() for name, text in made.items()} == wanted
    url = {"metrics": {"rules": {"runbookUrl": "https://wiki.example/runbooks/"}}}
    text = "".join(
        text for item in of_kind(render(url), "ConfigMap") for text in item["data"].values()
    )
    assert "https://wiki.example/runbooks/${__data.fields.alertname}.md" in text
    assert RUNBOOKS not in text
