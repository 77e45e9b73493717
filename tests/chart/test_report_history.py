"""The report's history, from a real Prometheus that has every series of a job."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from inception_operator.contract.names import State
from inception_operator.report import history
from inception_operator.report.content import Report, Restart
from inception_operator.report.page import render
from staged_series import MINUTES, StagedPrometheus

KNOWN = Restart(1.0, "OOMKilled", "rank 1")
REPORT = Report("team/digits", datetime(2026, 1, 1, tzinfo=UTC), restarts=(KNOWN,))


def life(staged: StagedPrometheus, name: str = "digits") -> history.Life:
    return history.Life("team", name, staged.end - 60 * (MINUTES - 5), staged.end)


def test_curves_and_states_come_from_prometheus(staged: StagedPrometheus) -> None:
    report = history.add(REPORT, f"http://{staged.address}/", life(staged))
    curves = {curve.name: curve.points for chart in report.charts for curve in chart.curves}
    assert len(curves) == 6
    assert all(len(points) > 30 for points in curves.values())
    assert {span.name for span in report.spans} == {State.RUNNING}
    assert report.restarts == (KNOWN,), "their number has not grown"
    assert render(report).count("<svg") == 6


def test_a_job_without_history_has_none(staged: StagedPrometheus) -> None:
    report = history.add(REPORT, f"http://{staged.address}", life(staged, 'x"} or vector(1)#'))
    assert not report.spans
    assert not any(curve.points for chart in report.charts for curve in chart.curves)


@pytest.mark.parametrize("path", ["/nowhere", "/-/healthy"])
def test_another_answer_is_an_error(staged: StagedPrometheus, path: str) -> None:
    with pytest.raises(history.HistoryError, match="no JSON"):
        history.add(REPORT, f"http://{staged.address}{path}", life(staged))


def test_no_answer_is_an_error(staged: StagedPrometheus) -> None:
    with pytest.raises(history.HistoryError, match=r"127\.0\.0\.1:1"):
        history.add(REPORT, "http://127.0.0.1:1", life(staged))


def test_no_address_is_an_error(staged: StagedPrometheus) -> None:
    with pytest.raises(history.HistoryError, match="prometheus"):
        history.add(REPORT, "prometheus", life(staged))
