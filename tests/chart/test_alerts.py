"""Rules for Prometheus: each alert fires in its fault, stays silent without it and resolves after
it, whatever labels the series come with.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

import alert_rules
from alert_rules import Change, honoured, not_honoured
from chart_values import Render, of_kind, only
from exported_series import exported, nodes, selectors
from inception_operator.contract.names import State

ALERTS = alert_rules.alerts()
RULES = alert_rules.rules()
CASES = alert_rules.cases("alerts")
DEVICES = alert_rules.cases("accelerators")
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
# What others export; their names and labels are in docs/alerts.md.
OF_OTHERS = re.compile(r"(kubelet_volume_stats|DCGM_FI_DEV|mlu|npu_chip_info|gpu|dcu)_\w+")
Clusters = list[dict[str, str]]
# How the same series look in a Prometheus: of one cluster, or of several that meet in one place.
LOOKS = pytest.mark.parametrize(
    ("look", "clusters"),
    [
        (honoured, [{}]),
        (not_honoured, [{}]),
        (honoured, [{"cluster": "a"}, {"cluster": "b"}]),
    ],
    ids=["labels honoured", "labels not honoured", "two clusters"],
)
ENABLED = {"metrics": {"rules": {"enabled": True}}}


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


def names_read(expression: str) -> set[str]:
    """Names of the series of an expression; a pattern of names is spelt out."""
    found: set[str] = set()
    for selector in selectors(promql_parser.parse(expression)):
        patterns = [
            match.value for match in selector.matchers.matchers if match.name == "__name__"
        ] or [selector.name]
        for pattern in patterns:
            head, _, choices = pattern.partition("(")
            found |= {head + choice for choice in choices.removesuffix(")").split("|")}
    return found


def expected(number: int, case: dict[str, Any], clusters: Clusters) -> list[dict[str, Any]]:
    """What ``ALERTS`` must be at the times of a case, in none or in several clusters."""
    name = case["alert"]
    own = {"alertname": name, "alertstate": "firing", **ALERTS[name]["labels"]}
    chosen = "" if case.get("alone") else f',namespace=~".+-{number}"'
    apart = alert_rules.apart(number)
    return [
        {
            "expr": f'ALERTS{{alertname="{name}",alertstate="firing"{chosen}}}',
            "eval_time": time,
            "exp_samples": [
                {"labels": alert_rules.join("ALERTS", own | apart("", labels) | more), "value": 1}
                for labels in firing
                for more in clusters
            ],
        }
        for time, firing in case["at"].items()
    ]


def staged(
    cases: dict[int, dict[str, Any]], look: Change, clusters: Clusters, tests: list[dict[str, Any]]
) -> dict[str, Any]:
    """All these faults in one Prometheus, as a group of promtool's tests."""
    series = [
        series
        for number, case in cases.items()
        for more in clusters
        for series in alert_rules.input_series(
            case["series"], alert_rules.apart(number), look, alert_rules.in_cluster(more)
        )
    ]
    return {"interval": "1m", "input_series": series, "promql_expr_test": tests}


def faults(cases: dict[int, dict[str, Any]], look: Change, clusters: Clusters) -> dict[str, Any]:
    """The same, with what must come of the alerts."""
    tests = [test for number, case in cases.items() for test in expected(number, case, clusters)]
    return staged(cases, look, clusters, tests)


@LOOKS
def test_alerts_fire_stay_silent_and_resolve(
    look: Change, clusters: Clusters, tmp_path: Path
) -> None:
    together = {number: case for number, case in enumerate(CASES) if not case.get("alone")}
    assert alert_rules.check([faults(together, look, clusters)], tmp_path) == ""


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.get("alone")], ids=lambda case: str(case["about"])
)
def test_alerts_about_a_whole_prometheus(case: dict[str, Any], tmp_path: Path) -> None:
    assert alert_rules.check([faults({0: case}, honoured, [{}])], tmp_path) == ""


@pytest.mark.parametrize("wrong", [{"30m": []}, {"20m": [{"namespace": "team", "training": "x"}]}])
def test_a_wrong_expectation_is_told(wrong: dict[str, Any], tmp_path: Path) -> None:
    group = faults({0: CASES[0] | {"at": wrong}}, honoured, [{}])
    assert "InceptionJobStalled" in alert_rules.check([group], tmp_path)


def test_every_alert_has_a_case_that_is_quiet_then_fires_then_resolves() -> None:
    first = {case["alert"]: case for case in reversed(CASES)}
    assert set(first) == set(ALERTS)
    for name, case in first.items():
        assert [bool(firing) for firing in case["at"].values()] == [False, True, False], name


def recorded(number: int, case: dict[str, Any], record: str, device: dict[str, Any]) -> str:
    """The series that a device of a job must have."""
    labels = {key: value for key, value in device.items() if key != "value"}
    labels |= {"namespace": f"team-{number}", "training": "digits"}
    labels["accelerator"] = case["accelerator"]
    return alert_rules.join(f"namespace_pod_accelerator:{record}", labels)


@LOOKS
def test_the_figures_of_all_vendors_come_in_one_vocabulary(
    look: Change, clusters: Clusters, tmp_path: Path
) -> None:
    info = 'inception_operator_job_info{namespace="team",name="digits",accelerator="x",model="y"}'
    cases = {
        number: case | {"series": {info: "1x10"} | case["series"]}
        for number, case in enumerate(DEVICES)
    }
    tests = [
        {
            "expr": f'namespace_pod_accelerator:{record}{{namespace="team-{number}"}}',
            "eval_time": "5m",
            "exp_samples": [
                {"labels": recorded(number, case, record, device | more), "value": device["value"]}
                for device in devices
                for more in clusters
            ],
        }
        for number, case in cases.items()
        for record, devices in case["records"].items()
    ]
    assert alert_rules.check([staged(cases, look, clusters, tests)], tmp_path) == ""


def test_every_record_of_accelerators_is_asked_for_with_every_vendor() -> None:
    records = {
        f"namespace_pod_accelerator:{record}" for case in DEVICES for record in case["records"]
    }
    ours = {record for record in RECORDED if record.startswith("namespace_pod_accelerator:")}
    assert records == ours - {"namespace_pod_accelerator:figure:raw"}
    assert all(set(case["records"]) == set(DEVICES[0]["records"]) for case in DEVICES)
    vendors = {
        rule["labels"]["accelerator"] for rule in RULES if "labels" in rule and "record" in rule
    }
    assert vendors <= {case["accelerator"] for case in DEVICES}


def test_promtool_finds_nothing_wrong() -> None:
    for path in alert_rules.paths():
        done = alert_rules.promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_rules_are_about_series_that_exist(rule: dict[str, Any]) -> None:
    names = names_read(rule["expr"])
    assert names
    unknown = names - exported() - RECORDED
    assert {name for name in unknown if not OF_OTHERS.fullmatch(name)} == set()


def test_no_record_is_for_nothing() -> None:
    read = {name for rule in RULES for name in names_read(rule["expr"])}
    # The accelerators' figures are for dashboards, too.
    unread = {name for name in RECORDED - read if not name.startswith("namespace_pod_accelerator:")}
    assert unread == set()


def test_pages_of_jobs_cannot_speak_for_others(render: Render) -> None:
    """Rules take the label namespace of the operator's page at its word, so no tenant may have
    series of these names, nor such as the rules make.
    """
    monitors = render({"metrics": {"trainer": {"podMonitor": {"enabled": True}}}})
    (endpoint,) = only(monitors, "PodMonitor", "-trainers")["spec"]["podMetricsEndpoints"]
    (dropped,) = endpoint["metricRelabelings"]
    assert (dropped["action"], dropped["sourceLabels"]) == ("drop", ["__name__"])
    read = {name for rule in RULES for name in names_read(rule["expr"])} | RECORDED
    kept = {name for name in read if not re.fullmatch(dropped["regex"], name)}
    assert {name.partition("_")[0] for name in kept} == {"trainer"}
    of_trainer = {name for name in exported() if name.startswith("trainer_")}
    assert not [name for name in of_trainer if re.fullmatch(dropped["regex"], name)]


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_no_rule_mixes_clusters_or_namespaces(rule: dict[str, Any]) -> None:
    for part in nodes(promql_parser.parse(rule["expr"])):
        modifier = getattr(part, "modifier", None)
        if isinstance(part, promql_parser.AggregateExpr):
            assert modifier is not None, part
            if str(modifier).startswith("by"):
                assert "cluster" in modifier.labels, str(modifier)
                assert {"namespace", "node"} & set(modifier.labels), str(modifier)
            else:
                assert not {"cluster", "namespace"} & set(modifier.labels), str(modifier)
        elif modifier is not None and modifier.matching is not None:
            labels = modifier.matching.labels
            # The one for a Prometheus that has nothing at all.
            assert "cluster" in labels or labels == [], str(modifier)
            assert {"namespace", "node"} & set(labels) or labels == [], str(modifier)


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_say_what_is_the_matter_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Inception(Job|Checkpoint|Volume|Accelerator|Operator)[A-Za-z]+", name)
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    texts = rule["annotations"]
    assert set(texts) == {"summary", "description", "runbook_url"}
    assert re.fullmatch(r"[A-Z][^{}]*\.", texts["summary"]), "static, so that alerts group by it"
    assert texts["description"].endswith(".")
    assert texts["runbook_url"] == f"docs/runbooks/{name}.md"


@pytest.mark.parametrize("name", ALERTS)
def test_descriptions_name_only_labels_that_the_alert_has(name: str) -> None:
    firing = [
        labels
        for case in CASES
        if case["alert"] == name and not case.get("alone")
        for alerts in case["at"].values()
        for labels in alerts
    ]
    description = ALERTS[name]["annotations"]["description"]
    # Those in a condition may be absent.
    sure = re.findall(r"{{ \$labels\.(\w+) }}", description)
    assert sure or "with $labels" in description
    for labels in firing:
        assert set(sure) <= set(labels), labels


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook_page(name: str) -> None:
    text = (alert_rules.RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ .+$", text, re.MULTILINE)
    assert headings == [f"# {name}", "## What it means", "## What to look at", "## What to do"]
    assert len(text.splitlines()) < 60, "short"


def test_no_runbook_page_is_left_over() -> None:
    pages = {path.stem for path in alert_rules.RUNBOOKS.glob("Inception*.md")}
    assert pages == set(ALERTS)


def test_states_in_rules_are_states() -> None:
    states = {value for key, value in vars(State).items() if key.isupper()}
    used = {
        state
        for rule in RULES
        for text in re.findall(r'state[!=]~?"([^"]+)"', rule["expr"])
        for state in text.split("|")
    }
    assert used
    assert used <= states


def test_the_chart_makes_one_rule_object_of_the_same_files(render: Render) -> None:
    assert not of_kind(render(), "PrometheusRule")
    (rule,) = of_kind(render(ENABLED), "PrometheusRule")
    groups = [
        group
        for path in alert_rules.paths()
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    assert rule["spec"] == {"groups": groups}
    assert rule["metadata"]["namespace"] == "system"


def test_values_shape_the_alerts(render: Render, template: Callable[..., Any]) -> None:
    chosen = {
        "enabled": True,
        "namespace": "monitoring",
        "labels": {"release": "prometheus"},
        "alertLabels": {"team": "ml", "severity": "page"},
        "disabledAlerts": ["InceptionJobFailed"],
        "runbookUrl": "https://wiki.example/runbooks/",
    }
    rule = only(render({"metrics": {"rules": chosen}}), "PrometheusRule")
    assert rule["metadata"]["namespace"] == "monitoring"
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    made = {
        item["alert"]: item
        for group in rule["spec"]["groups"]
        for item in group["rules"]
        if "alert" in item
    }
    assert set(made) == set(ALERTS) - {"InceptionJobFailed"}
    for name, item in made.items():
        assert item["labels"] == {"team": "ml", "severity": "page"}
        url = f"https://wiki.example/runbooks/{name}.md"
        assert item["annotations"] == ALERTS[name]["annotations"] | {"runbook_url": url}
    wrong = {"metrics": {"rules": {"enabled": True, "disabledAlerts": ["InceptionJobFaild"]}}}
    done = template(wrong)
    assert done.returncode != 0
    assert "names InceptionJobFaild; the alerts are Inception" in done.stderr


def test_helm_3_makes_the_same_rules(render: Render, render3: Render) -> None:
    assert only(render3(ENABLED), "PrometheusRule") == only(render(ENABLED), "PrometheusRule")
