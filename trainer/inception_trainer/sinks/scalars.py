"""Points of curves, by the tags under which TensorBoard and the experiment trackers have them."""

from __future__ import annotations

from inception_trainer.reporting.records import EvaluationRecord, LogRecord


def of_training(record: LogRecord) -> dict[str, float]:
    """The means over a log interval."""
    values = {
        "train/loss": record.loss,
        "train/lr": record.learning_rate,
        "train/top1": record.accuracy_top1,
        "perf/images_per_second": record.images_per_second,
        "perf/data_wait_ratio": record.data_wait_ratio,
        "perf/step_seconds": record.step_seconds,
    }
    if record.device_idle_ratio is not None:
        values["perf/device_idle_ratio"] = record.device_idle_ratio
    return values


def of_evaluation(record: EvaluationRecord) -> dict[str, float]:
    """The figures of an evaluation."""
    values = {
        "val/loss": record.loss,
        "val/top1": record.accuracy_top1,
        "val/top5": record.accuracy_top5,
    }
    if record.raw_accuracy_top1 is not None:
        values["val/raw_top1"] = record.raw_accuracy_top1
    return values
