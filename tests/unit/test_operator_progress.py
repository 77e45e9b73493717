"""Figures of the training, from the metrics page and from the last report to the status."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from inception_operator.contract import progress, report
from inception_operator.contract.types import Progress, Report

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PAGE = """\
# HELP trainer_progress_ratio Share of the steps that are done.
# TYPE trainer_progress_ratio gauge
trainer_progress_ratio 0.29
trainer_epoch 3.0
trainer_step 120.0
trainer_loss 0.123456
trainer_accuracy_ratio{k="1",split="val"} 0.9712
trainer_accuracy_ratio{k="5",split="val"} 0.999
trainer_accuracy_ratio{k="1",split="train"} 0.5
trainer_samples_per_second 812.34
trainer_estimated_remaining_seconds 59.6
trainer_samples_seen 7680.0
trainer_repeated_steps_total 3.0
trainer_checkpoint_last_success_timestamp_seconds 1.767268800e+09
trainer_step_duration_seconds_bucket{part="data",le="0.1"} 5.0
python_info{version="3.11"} 1.0
"""


def test_metrics_page() -> None:
    found = progress.from_metrics(PAGE, NOW)
    assert found is not None
    assert progress.to_json(found) == {
        "progressPercentage": 29,
        "estimatedRemainingSeconds": 60,
        "epoch": 3,
        "step": 120,
        "samplesPerSecond": "812.3",
        "accuracyTop1": "0.9712",
        "accuracyTop5": "0.9990",
        "loss": "0.1235",
        "samplesSeen": 7680,
        "repeatedSteps": 3,
        "lastCheckpointTime": "2026-01-01T12:00:00Z",
        "lastUpdatedTime": "2026-01-01T12:00:00Z",
    }


def test_a_checkpoint_that_could_not_be_written_is_seen() -> None:
    for value, failing in (("0.0", False), ("1.0", True)):
        found = progress.from_metrics(f"{PAGE}trainer_checkpoint_failing {value}\n", NOW)
        assert found is not None
        assert found.checkpoint_failing is failing


def test_pages_without_figures() -> None:
    assert progress.from_metrics("", NOW) is None
    assert progress.from_metrics("python_info 1\n", NOW) is None
    assert progress.from_metrics("trainer_step{ 1\n", NOW) is None


def test_unknown_figures_are_left_out_and_a_lost_loss_is_told() -> None:
    page = (
        "trainer_step NaN\ntrainer_loss NaN\n"
        'trainer_accuracy_ratio{split="val",k="1"} +Inf\ntrainer_epoch 1\n'
    )
    found = progress.from_metrics(page, NOW)
    assert found is not None
    assert progress.to_json(found) == {
        "epoch": 1,
        "loss": "nan",
        "lastUpdatedTime": "2026-01-01T12:00:00Z",
    }


def test_final_report() -> None:
    metrics = {
        "accuracyTop1": 0.97,
        "loss": 0.1,
        "samplesPerSecond": 812.0,
        "progress": 1.0,
        "epoch": 3.0,
    }
    found = progress.from_report(
        Report(1, "Succeeded", step=200, metrics={**metrics, "samplesSeen": 10.0}), NOW
    )
    assert progress.to_json(found) == {
        "progressPercentage": 100,
        "epoch": 3,
        "step": 200,
        "samplesPerSecond": "812.0",
        "accuracyTop1": "0.9700",
        "loss": "0.1000",
        "samplesSeen": 10,
        "lastUpdatedTime": "2026-01-01T12:00:00Z",
    }


def test_figures_that_the_schema_refuses_are_left_out() -> None:
    """A program of the user's writes them, and a refused status would stop its job."""
    text = json.dumps(
        {
            "attempt": 1,
            "state": "Running",
            "step": -1,
            "metrics": {
                "epoch": 2**31,
                "samplesSeen": -5,
                "estimatedRemainingSeconds": 1e300,
                "loss": 10**400,
                "progress": 7,
                "accuracyTop1": "high",
                "samplesPerSecond": 1e300,
                "accuracyTop5": {},
            },
        }
    )
    found = report.from_json(text)
    assert found is not None
    assert progress.to_json(progress.from_report(found, NOW)) == {
        "progressPercentage": 100,
        "samplesPerSecond": "1e+300",
        "lastUpdatedTime": "2026-01-01T12:00:00Z",
    }


def test_percentage_stays_in_its_bounds() -> None:
    found = [
        progress.to_json(Progress(NOW, progress=p))["progressPercentage"]
        for p in (-1, 0.999, 1.0, 7)
    ]
    assert found == [0, 99, 100, 100]


def test_merging() -> None:
    known = progress.merged(None, Progress(NOW, step=1, accuracy_top1=0.5), at_once=False)
    assert known is not None
    later = Progress(NOW + timedelta(seconds=9), step=2)
    assert progress.merged(known, later, at_once=False) is None
    merged = progress.merged(known, later, at_once=True)
    assert merged == known | {"step": 2, "lastUpdatedTime": "2026-01-01T12:00:09Z"}
    assert progress.merged(merged, Progress(NOW, step=1), at_once=True) is None, "older figures"
    assert (
        progress.merged(merged, Progress(NOW + timedelta(hours=1), step=2), at_once=True) is None
    ), "nothing new"


def test_of_more_figures_than_there_may_be_the_first_ones_are_read() -> None:
    own = {f"recall/{number}": 0.5 for number in range(report.MAX_METRICS)}
    said = {"attempt": 1, "state": "Running", "metrics": {"loss": 0.25, **own}}
    read = report.from_json(said)
    assert read is not None
    assert read.metrics["loss"] == 0.25
    assert len(read.metrics) == report.MAX_METRICS
