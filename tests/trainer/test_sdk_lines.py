"""The Python SDK reads the figures in the lines that the trainer writes to its log."""

from __future__ import annotations

import dataclasses
import math

import pytest

from example_run import INFO
from inception_operator.client.pod_logs import Line
from inception_operator.sdk.metrics import Metric, metric_of
from inception_trainer import log
from inception_trainer.reporting.records import EvaluationRecord, LogRecord
from inception_trainer.sinks.console import Console

LOG = LogRecord(10, 1.0, 0.5, 0.8, 0.99, 0.1, 800.0, 0.01, 0.25, 0.5, 12.0, 80, 0)
EVALUATION = EvaluationRecord(10, 1.0, 0.4, 0.9, 1.0, 30, 15, 1.5, True)


@pytest.mark.parametrize("job", ["test", ""], ids=["in a job", "elsewhere"])
@pytest.mark.parametrize(
    "record",
    [
        LOG,
        dataclasses.replace(LOG, loss=math.inf),
        dataclasses.replace(LOG, loss=12345.678, device_idle_ratio=0.25),
        EVALUATION,
        dataclasses.replace(EVALUATION, raw_accuracy_top1=0.5, is_best=False),
    ],
    ids=["step", "not finite", "idle", "validation", "averaged"],
)
def test_a_line_of_the_log_is_the_record_that_it_was_made_of(
    record: LogRecord | EvaluationRecord, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(job, 2, 0)
    console = Console()
    console.start(INFO)
    if isinstance(record, LogRecord):
        console.log(record)
    else:
        console.evaluation(record)
    found = metric_of(Line("test-0-1", "2026-01-01T00:00:00Z", capsys.readouterr().out.rstrip()))
    assert found is not None
    assert (found.attempt, found.step) == (2, 10)
    assert figures(found) == pytest.approx(expected(record), rel=1e-3)


def figures(found: Metric) -> dict[str, float]:
    """All that is known of it but where it belongs."""
    known = {key: value for key, value in dataclasses.asdict(found).items() if value is not None}
    return {key: known[key] for key in known.keys() - {"time", "attempt", "step", "epoch"}}


def expected(record: LogRecord | EvaluationRecord) -> dict[str, float]:
    if isinstance(record, LogRecord):
        return {
            "loss": record.loss,
            "accuracy_top1": record.accuracy_top1,
            "learning_rate": record.learning_rate,
            "images_per_second": record.images_per_second,
        }
    return {
        "validation_loss": record.loss,
        "validation_top1": record.accuracy_top1,
        "validation_top5": record.accuracy_top5,
    }
