"""The report of a job: it shows what is known, leaves out what is not, and believes nobody."""

from __future__ import annotations

import json
import math
import os
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_operator.contract.names import State
from inception_operator.decide.goodput import CAUSES
from inception_operator.report import cluster, files, history, svg
from inception_operator.report.__main__ import main
from inception_operator.report.content import Chart, Curve, Report, Restart, Span
from inception_operator.report.page import render

MADE = datetime(2026, 1, 1, tzinfo=UTC)
RECORDED = Path(__file__).resolve().parents[1] / "support" / "recorded_run"
STATUS: dict[str, Any] = {
    "state": "Succeeded",
    "attempt": 2,
    "restarts": 1,
    "trainerStatus": {"accuracyTop1": "0.9722", "loss": "0.1", "progressPercentage": 100},
    "goodput": {
        "ratio": "0.7500",
        "seconds": {"productive": 300, "recovery": 60, "pods": 40, "queue": 0},
    },
    "conditions": [
        {
            "type": "Succeeded",
            "status": "True",
            "reason": "Completed",
            "message": "The training has completed.",
            "lastTransitionTime": "2026-01-01T00:10:00Z",
        }
    ],
    "rootCause": {
        "attempt": 1,
        "pod": "digits-1-1",
        "node": "n1",
        "rank": 1,
        "reason": "OOMKilled",
        "message": "killed by the kernel",
        "time": "2026-01-01T00:05:00Z",
    },
}
RESOURCE: dict[str, Any] = {
    "metadata": {"namespace": "team", "name": "digits"},
    "spec": {
        "nodes": 2,
        "training": {"recipe": "bninception-digits"},
        "template": {"spec": {"containers": [{"env": [{"name": "TOKEN", "value": "s3cret"}]}]}},
    },
    "status": STATUS,
}
EVENTS = [
    {
        "reason": "Restarting",
        "message": "Attempt 1 ended: rank 1 on n1 was OOMKilled",
        "lastTimestamp": "2026-01-01T00:05:01Z",
    },
    {"reason": "AttemptStarted", "message": "Attempt 2", "lastTimestamp": "2026-01-01T00:05:09Z"},
]
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title></pre><svg onload=alert(1)>",
    "javascript:alert(1)",
    "]]><!--",
    "a\x00b\x1b[31m\u202etxt.exe\ud800",
)


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


# All that a report ever makes; none of them loads or runs anything.
TAGS = frozenset(
    re.split(
        " ",
        "html head meta title style body h1 h2 h3 p span div table tr th td pre i "
        "svg line text polyline circle rect",
    )
)
ATTRIBUTES = frozenset(
    re.split(
        " ",
        "lang charset http-equiv content name class style viewbox role aria-label "
        "x y x1 y1 x2 y2 cx cy r points width height fill stroke text-anchor "
        "stroke-width stroke-dasharray font-size preserveaspectratio data-name",
    )
)


def assert_harmless(text: str) -> Page:
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= TAGS
    assert {name for _, attributes in page.tags for name in attributes} <= ATTRIBUTES
    policies = [found for _, found in page.tags if found.get("http-equiv")]
    assert policies[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    styles = [found["style"] for _, found in page.tags if found.get("style")]
    assert all(re.fullmatch(r"background: #[0-9a-f]{6}", str(style)) for style in styles)
    text.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800]", text)
    return page


def test_in_a_pod_the_job_is_read_by_the_pods_own_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["team/x"]) == 1
    assert "Invalid kube-config file" in capsys.readouterr().err
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert main(["team/x"]) == 1
    # There is none here.
    assert "Service token file does not exist" in capsys.readouterr().err
    assert main(["team/x", "--context", "other"]) == 1
    assert "Invalid kube-config file" in capsys.readouterr().err


def test_the_page_shows_what_the_api_server_knows() -> None:
    report = cluster.of_resource(RESOURCE, EVENTS, MADE)
    text = render(report)
    page = assert_harmless(text)
    words = " ".join(page.texts)
    for word in (
        "team/digits",
        "Succeeded",
        "97.22 %",
        "75.00 %",
        "5 min 0 s",
        "The training has completed.",
        "rank 1 on n1 was OOMKilled",
        "killed by the kernel",
        "recipe: bninception-digits",
    ):
        assert word in words, word
    assert "queue" not in words, "a cause without time"
    assert [restart.reason for restart in report.restarts] == ["Restarting", "OOMKilled"]


def test_passwords_of_the_template_stay_out() -> None:
    assert "s3cret" not in render(cluster.of_resource(RESOURCE, EVENTS, MADE))


def test_the_page_of_an_unknown_job_has_no_empty_parts() -> None:
    page = assert_harmless(render(Report("team/new", MADE)))
    assert [tag for tag, _ in page.tags if tag in {"h2", "svg", "table"}] == []


def test_a_recorded_run_has_its_curves_and_figures() -> None:
    report = files.read(RECORDED, MADE)
    assert report.notes == ()
    assert report.title == "team/digits"
    lengths = {
        f"{chart.title} {curve.name}": len(curve.points)
        for chart in report.charts
        for curve in chart.curves
    }
    assert lengths == {
        "Loss training": 12,
        "Loss validation": 2,
        "Accuracy top-1": 2,
        "Accuracy top-5": 2,
        "Throughput training": 12,
        "Learning rate learning rate": 12,
    }
    assert [span.name for span in report.spans] == ["attempt 1", "attempt 2"]
    (restart,) = report.restarts
    assert restart.time == report.spans[1].begin
    page = assert_harmless(render(report))
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 5
    assert len([tag for tag, found in page.tags if found.get("stroke-dasharray")]) == 4
    assert "top-1 accuracy" in page.texts
    assert any("kind: Synthetic" in text for text in page.texts)


def test_files_that_are_missing_or_broken_are_named(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{" * 5000)
    lines = ["DLLL {", "DLLL []", "", '{"timestamp": "x", "data": {}, "type": "LOG"}', "[" * 9999]
    (tmp_path / "raport.json").write_text("\n".join(lines))
    report = files.read(tmp_path, MADE)
    assert re.search(r"summary.json cannot be read: .+", report.notes[0])
    assert report.notes[1:] == (
        "4 lines of raport.json cannot be read",
        "config.yaml cannot be read: No such file or directory",
    )
    assert_harmless(render(report))


def test_neither_links_nor_pipes_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").symlink_to(secret)
    os.mkfifo(run / "summary.json")
    report = files.read(run, MADE)
    assert "s3cret" not in render(report)
    assert "summary.json is no file" in report.notes
    assert any(note.startswith("config.yaml cannot be read") for note in report.notes)


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_tenants_stay_texts(text: str, tmp_path: Path) -> None:
    status = json.loads(json.dumps(STATUS))
    status["state"] = status["model"] = text
    status["conditions"][0]["message"] = status["rootCause"]["message"] = text
    status["goodput"]["seconds"] = {text: 10, "productive": 1}
    report = Report(
        title=text,
        made=MADE,
        sources=(text,),
        status=status,
        summary={"exitReason": text, "model": text, "accuracyTop1": text},
        configuration=text,
        charts=(Chart(text, text, (Curve(text, ((0.0, 1.0), (1.0, 2.0))),)),),
        spans=(Span(text, 0.0, 1.0),),
        restarts=(Restart(None, text, text),),
        notes=(text,),
    )
    page = assert_harmless(render(report))
    if "\x00" not in text:
        assert page.texts.count(text) > 8


def test_statuses_of_another_shape_do_no_harm() -> None:
    odd: dict[str, Any] = {
        "trainerStatus": [1],
        "goodput": {"seconds": {"productive": "x", "pods": math.inf, "data": -1}},
        "conditions": ["x", {"type": ["y"]}],
        "nodes": "two",
        "attempt": 10**400,
    }
    assert_harmless(render(Report("team/odd", MADE, status=odd)))


numbers = st.floats(width=64)


@settings(max_examples=60)
@given(st.lists(st.tuples(numbers, numbers), max_size=30))
def test_any_numbers_make_a_picture(points: list[tuple[float, float]]) -> None:
    curve = Curve("any", tuple(points))
    text = tostring(svg.curves(Chart("any", "", (curve,)), [0.0]), encoding="unicode")
    assert not re.search(r'="[^"]*\b(?:nan|inf)\b', text)


def test_long_curves_are_thinned_and_keep_their_mean() -> None:
    curve = Curve("long", tuple((float(at), float(at % 2)) for at in range(20_000)))
    thin = svg.thinned(curve)
    assert len(thin.points) <= svg.MOST_POINTS
    assert sum(value for _, value in thin.points) / len(thin.points) == pytest.approx(0.5)
    assert len(render(Report("x", MADE, charts=(Chart("x", "", (curve,) * 10),)))) < 200_000


def test_states_and_causes_have_their_colours() -> None:
    states = {value for key, value in vars(State).items() if key.isupper()}
    assert set(svg.STATE_COLOURS) == states
    assert len(set(svg.STATE_COLOURS.values())) == len(states)
    assert set(svg.CAUSE_COLOURS) == set(CAUSES)


def test_states_of_the_samples_become_spans_and_steps_restarts() -> None:
    states: history.Series = [
        ({"state": "Running"}, [(0.0, 1.0), (15.0, 1.0), (45.0, 1.0)]),
        ({"state": "Restarting"}, [(30.0, 1.0)]),
        ({"state": "Failed"}, [(0.0, 0.0)]),
    ]
    assert list(history.spans(states, 15.0)) == [
        Span("Running", 0.0, 30.0),
        Span("Restarting", 30.0, 45.0),
        Span("Running", 45.0, 60.0),
    ]
    counts: history.Series = [({}, [(0.0, 0.0), (15.0, 0.0), (30.0, 2.0), (45.0, 2.0)])]
    assert list(history.restarts(counts)) == [Restart(30.0, "", "restart 2")]


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.html"
    assert main(["--files", str(RECORDED), "--output", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give NAMESPACE/NAME"),
        (["digits"], "is not NAMESPACE/NAME"),
        (["--files", "/nowhere"], "is no folder"),
        (["--files", "/", "--prometheus", "http://x"], "--prometheus needs NAMESPACE/NAME"),
    ],
)
def test_wrong_arguments_are_said(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert words in capsys.readouterr().err


def test_a_cluster_without_credentials_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["team/digits", "--kubeconfig", str(tmp_path / "none")]) == 1
    assert re.fullmatch(r"error: no usable credentials .+\n", capsys.readouterr().err)
