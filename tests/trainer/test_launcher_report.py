"""The report's shape and the cutting of the termination message."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_trainer.launcher.rank_times import RankTimes, parse
from inception_trainer.launcher.report import (
    Report,
    State,
    termination_message,
    timestamp,
    with_progress,
)
from inception_trainer.launcher.server import AttemptFiles, Board

FAILED = Report(
    3,
    State.FAILED,
    1767225600.123456,
    66,
    1,
    "InputMissing",
    "no such file",
    "job-0-1",
    120,
    {"loss": 0.1},
)


def test_shape_of_the_contract() -> None:
    assert FAILED.to_dict() == {
        "attempt": 3,
        "state": "Failed",
        "exitCode": 66,
        "rank": 1,
        "host": "job-0-1",
        "reason": "InputMissing",
        "message": "no such file",
        "time": "2026-01-01T00:00:00.123456Z",
        "step": 120,
        "metrics": {"loss": 0.1},
        "ranks": [],
        "leaving": False,
        "contract": 1,
    }


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        (State.STARTING, False),
        (State.IDLE, True),
        (State.RUNNING, True),
        (State.FAILED, False),
        (State.STOPPED, False),
        (State.SUCCEEDED, True),
    ],
)
def test_readiness(state: State, ready: bool) -> None:
    assert state.ready is ready


def test_timestamp_always_has_microseconds() -> None:
    assert timestamp(0.0) == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("progress", [None, [], "x", {"step": "x", "metrics": 3}, {}])
def test_malformed_progress_changes_nothing(progress: object) -> None:
    assert with_progress(FAILED, progress) == FAILED


def test_progress() -> None:
    report = with_progress(FAILED, {"step": 130, "metrics": {"loss": 0.05}, "time": "x"})
    assert (report.step, report.metrics) == (130, {"loss": 0.05})


def _with(message: str, **metrics: float) -> Report:
    return Report(3, State.FAILED, 1.0, 1, 0, "Error", message, "host", 1, dict(metrics))


def test_short_message_is_kept_whole() -> None:
    assert json.loads(termination_message(FAILED)) == FAILED.to_dict()


def test_long_message_is_cut_at_its_end() -> None:
    message = json.loads(termination_message(_with("head " + "x" * 9000)))["message"]
    assert message.startswith("head xxx")
    assert message.endswith(" …")
    assert len(message) > 3500


@pytest.mark.parametrize("count", [190, 500], ids=["nearly all the room", "more than there is"])
def test_many_metrics_do_not_cost_the_message(count: int) -> None:
    report = _with("words " * 300, **{f"metric{n}": 1.0 for n in range(count)})
    data = json.loads(termination_message(report))
    assert data["metrics"] == {}
    assert data["exitCode"] == 1
    assert data["message"] == "words " * 300


@settings(deadline=None)
@given(st.text(st.characters(), max_size=6000))
def test_any_text_fits_and_stays_json(text: str) -> None:
    data = termination_message(_with(text))
    assert len(data) <= 4096
    assert json.loads(data.decode("utf-8"))["reason"] == "Error"


@settings(deadline=None)
@given(st.text('é\u0001"😀\ud800', min_size=1000, max_size=3000))
def test_awkward_text_fits(text: str) -> None:
    data = termination_message(_with(text))
    assert len(data) <= 4096
    json.loads(data.decode("utf-8"))


@pytest.mark.parametrize(
    ("text", "step"),
    [
        pytest.param('{"step": 5, "metrics": {"loss": 1}}', 5, id="good"),
        pytest.param('{"step": 5, "met', 120, id="torn"),
        pytest.param("[" * 5000, 120, id="deep"),
        pytest.param(
            json.dumps({"step": 5, "metrics": {"x" * n: n for n in range(200)}}), 120, id="too much"
        ),
    ],
)
def test_progress_file_of_a_program(tmp_path: Path, text: str, step: int) -> None:
    (tmp_path / "progress.json").write_text(text, encoding="utf-8")
    board = Board(FAILED)
    board.publish(FAILED, AttemptFiles(tmp_path / "progress.json", tmp_path, 0))
    assert board.report().step == step


def test_heartbeats_tell_how_far_ranks_are_that_tell_no_progress() -> None:
    board = Board(Report(attempt=2, state=State.RUNNING))
    assert not board.reach(2, 0), "no step yet"
    assert board.report().step is None
    assert board.reach(2, 7)
    assert not board.reach(2, 8), "only the first one is news"
    assert not board.reach(2, 0), "ranks that have ended tell nothing"
    assert board.report().step == 8
    board.publish(Report(attempt=3), None)
    assert board.report().step is None, "what the attempt before has reached is not this one's"
    assert board.reach(3, 1)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        pytest.param("9 40 step 8 4.0 1.5 2.0", RankTimes(3, 8, 4.0, 1.5, 2.0), id="all"),
        pytest.param("9 40 long 8 4 1 2 and more", RankTimes(3, 8, 4.0, 1.0, 2.0), id="more"),
        pytest.param("9 40 step", None, id="no times"),
        pytest.param("9", None, id="a step"),
        pytest.param("", None, id="a touch"),
        pytest.param("9 40 step 8 4.0 1.5", None, id="cut off"),
        pytest.param("9 40 step 8 4.0 1.5 -2.0", None, id="negative"),
        pytest.param("9 40 step 8 4.0 nan 2.0", None, id="no number"),
        pytest.param("9 40 step 8 4.0 inf 2.0", None, id="infinite"),
        pytest.param("9 40 step 8.5 4.0 1.0 2.0", None, id="half a step"),
        pytest.param("we are doing fine so far today", None, id="words"),
    ],
)
def test_times_in_a_heartbeat(text: str, times: RankTimes | None) -> None:
    assert parse(text, 3) == times


def test_a_running_attempt_tells_where_the_steps_of_each_rank_went(tmp_path: Path) -> None:
    for local, own in ((0, 1.0), (1, 4.0)):
        line = f"9 40 step 8 5.0 {own} 0.5"
        (tmp_path / f"heartbeat-{local}").write_text(line.ljust(127) + "\n", encoding="ascii")
    (tmp_path / "heartbeat-2").touch()
    (tmp_path / "heartbeat-x").touch()
    board = Board(Report())
    running = Report(attempt=2, state=State.RUNNING)
    board.publish(running, AttemptFiles(tmp_path / "progress.json", tmp_path, 4))
    report = json.loads(board.report().to_bytes())
    assert report["ranks"] == [
        {"rank": 4, "steps": 8, "stepSeconds": 5.0, "ownSeconds": 1.0, "waitSeconds": 0.5},
        {"rank": 5, "steps": 8, "stepSeconds": 5.0, "ownSeconds": 4.0, "waitSeconds": 0.5},
    ]
    assert json.loads(termination_message(board.report()))["ranks"] == []
    failed = Report(attempt=2, state=State.FAILED)
    board.publish(failed, AttemptFiles(tmp_path / "progress.json", tmp_path, 4))
    assert board.report().ranks == (), "no rank runs any more"
