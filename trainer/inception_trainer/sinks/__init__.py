"""Sinks: what becomes of the records of a run (lines, files, metrics, pictures).

:func:`build` makes those that this process feeds. Besides our own formats there are those of
programs that others read logs with; their names and keys are not ours to choose.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from inception_trainer.config.settings import Settings
from inception_trainer.config.tracking import TrackingConfig
from inception_trainer.launcher import rank_times
from inception_trainer.launcher.rank_times import RankTimes
from inception_trainer.reporting.records import Sink

from .console import Console
from .curves import Curves
from .files import ProgressFile, Summary
from .mlflow import MLflow
from .mllog import MLLog
from .model_zoo_log import AccuracyLog, BenchmarkLog
from .nvidia_raport import NvidiaRaport
from .prometheus import Prometheus
from .tecorigin_log import TecoriginLog
from .tensorboard import TensorBoard
from .tracking import Tracking
from .wandb import Wandb


def build(
    settings: Settings,
    output: Path | None,
    mode: str = "Train",
    tracking: TrackingConfig | None = None,
) -> list[Sink]:
    """Sinks of this rank: those of the pod on local rank 0, those of the job on rank 0.

    ``output`` is where rank 0 may leave files, None for nowhere; the first pod's snapshot of the
    metrics lies there, too.
    """
    sinks: list[Sink] = []
    if settings.local_rank == 0:
        if settings.progress_file is not None:
            sinks.append(ProgressFile(settings.progress_file))
        snapshot = output / "metrics.prom" if output is not None and settings.rank == 0 else None
        if settings.metrics_port or snapshot is not None:
            sinks.append(Prometheus(settings.metrics_port, snapshot, _times_of_ranks(settings)))
    if settings.rank == 0:
        sinks.append(Console())
        if settings.benchmark_log is not None and mode == "Benchmark":
            sinks.append(BenchmarkLog(settings.benchmark_log))
        if settings.accuracy_log is not None and mode in ("Train", "Evaluate"):
            sinks.append(AccuracyLog(settings.accuracy_log))
        if mode == "Train" and tracking is not None:
            sinks += _trackers(tracking, settings.job_uid, output)
        if output is not None:
            sinks.append(Summary(output))
            if mode == "Train":
                sinks += [
                    NvidiaRaport(output),
                    MLLog(output),
                    TecoriginLog(output),
                    TensorBoard(output),
                    # Last, because drawing takes seconds.
                    Curves(output),
                ]
    return sinks


def _trackers(config: TrackingConfig, job_uid: str, output: Path | None) -> list[Sink]:
    """Those that are configured; whether they work is found out beside the training."""
    sinks: list[Sink] = []
    if config.mlflow.uri is not None:
        sinks.append(Tracking(MLflow(config.mlflow), job_uid, output))
    if config.wandb.project is not None and output is not None:
        sinks.append(Tracking(Wandb(config.wandb, output), job_uid, output))
    return sinks


def _times_of_ranks(settings: Settings) -> Callable[[], tuple[RankTimes, ...]] | None:
    """How to read where the steps of this pod's ranks went; None where nothing tells it."""
    if settings.heartbeat_file is None:
        return None
    return partial(rank_times.read, settings.heartbeat_file.parent, settings.rank)
