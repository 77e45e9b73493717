"""What a run tells and leaves behind: facts for the sinks, log records, summary.json, the content
of a checkpoint.

Each has one function, so that all modes report the same keys in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from inception_trainer import __version__
from inception_trainer.checkpoint.base import FORMAT, Checkpoint
from inception_trainer.comm import Comm
from inception_trainer.config import continuation, preprocessing
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Splits
from inception_trainer.data.sampler import LengthPlan
from inception_trainer.device import Figures, of_ranks
from inception_trainer.reporting.progress import Progress
from inception_trainer.reporting.records import EvaluationRecord, LogRecord, RunInfo

from .evaluation import Evaluation
from .setup import RunSetup
from .step import StepStats


def run_info(
    setup: RunSetup,
    comm: Comm,
    length: LengthPlan,
    *,
    model: str,
    parameters: int,
    global_batch: int,
    attempt: int,
    start_step: int = 0,
) -> RunInfo:
    """What stays the same while this process runs; :func:`dataclasses.replace` adds what only
    training knows.
    """
    accelerator = setup.accelerator
    return RunInfo(
        job=setup.settings.job,
        attempt=attempt,
        model=model,
        parameters=parameters,
        precision=accelerator.precision,
        device=accelerator.device.type,
        profile=accelerator.profile,
        # With one rank there is no process group, whatever its back end would be.
        backend=accelerator.backend if comm.world_size > 1 else "none",
        rank=comm.rank,
        world_size=comm.world_size,
        steps_per_epoch=length.steps_per_epoch,
        total_steps=length.total_steps,
        epochs=length.epochs,
        global_batch=global_batch,
        start_step=start_step,
        config=setup.config.as_dict(),
        output=setup.output,
    )


def log_record(
    stats: StepStats,
    info: RunInfo,
    *,
    step: int,
    learning_rate: float,
    images_per_second: float,
    step_seconds: float,
    samples_seen: int,
    devices: tuple[Figures, ...],
) -> LogRecord:
    """Means over the interval that ``stats`` are about; ``step`` steps are done.

    ``devices`` are the figures of this pod's ranks. The skipped images and steps are those of the
    interval; :func:`dataclasses.replace` puts in other ones.
    """
    # An interval may hold unreadable images only.
    counted = max(1.0, stats.samples)
    samples_left = (info.total_steps - step) * info.global_batch
    return LogRecord(
        step=step,
        epoch=step / info.steps_per_epoch,
        loss=stats.loss / counted,
        accuracy_top1=stats.top1 / counted,
        accuracy_top5=stats.top5 / counted,
        learning_rate=learning_rate,
        images_per_second=images_per_second,
        step_seconds=step_seconds,
        data_wait_ratio=stats.data_wait_ratio,
        progress=step / info.total_steps,
        remaining_seconds=samples_left / images_per_second if images_per_second else 0.0,
        samples_seen=samples_seen,
        skipped_samples=int(stats.skipped),
        skipped_steps=stats.skipped_steps,
        devices=devices,
        loss_scale=stats.loss_scale,
        gradient_norm=stats.gradient_norm,
        device_idle_ratio=stats.device_idle_ratio,
    )


def evaluation_record(
    result: Evaluation, *, step: int, epoch: float, pod_samples: int, is_best: bool
) -> EvaluationRecord:
    """What the sinks are told of an evaluation; ``pod_samples`` are those of this pod's ranks that
    they have not been told of before.
    """
    return EvaluationRecord(
        step=step,
        epoch=epoch,
        loss=result.loss,
        accuracy_top1=result.accuracy_top1,
        accuracy_top5=result.accuracy_top5,
        samples=result.samples,
        pod_samples=pod_samples,
        seconds=result.seconds,
        is_best=is_best,
        data_seconds=result.data_seconds,
        batch_seconds=result.batch_seconds,
    )


def pod_ranks(setup: RunSetup, comm: Comm) -> range:
    """The ranks that share this pod; torchrun and the launcher number them without gaps."""
    first = comm.rank - setup.settings.local_rank
    return range(first, first + setup.settings.local_world_size)


def pod_devices(setup: RunSetup, comm: Comm) -> tuple[Figures, ...]:
    """Memory, load and health of the devices of this pod's ranks; every rank must call it."""
    ranks = pod_ranks(setup, comm)
    return of_ranks(setup.accelerator, comm)[ranks.start : ranks.stop]


def summary(
    config: TrainingConfig,
    info: RunInfo,
    *,
    steps: int,
    samples_seen: int,
    wall_seconds: float,
    exit_reason: str = "Completed",
    **figures: Any,
) -> dict[str, Any]:
    """The content of summary.json: what every mode has, and the ``figures`` of this one."""
    return {
        "job": info.job,
        "mode": config.mode,
        "exitReason": exit_reason,
        "model": info.model,
        "recipe": config.recipe,
        "steps": steps,
        "samplesSeen": samples_seen,
        "evaluatedStep": -1,
        **figures,
        "wallSeconds": round(wall_seconds, 3),
        "attempts": info.attempt,
        "parameters": info.parameters,
        "precision": info.precision,
        "worldSize": info.world_size,
        "device": info.device,
        "profile": info.profile,
        "backend": info.backend,
        "versions": {"trainer": __version__, "torch": str(torch.__version__)},
    }


def training_summary(
    progress: Progress, config: TrainingConfig, info: RunInfo, exit_reason: str
) -> dict[str, Any]:
    """The summary of a training; accuracies are 0 to 1, of the last evaluation."""
    return summary(
        config,
        info,
        steps=progress.step,
        samples_seen=progress.samples_seen,
        wall_seconds=progress.wall_seconds,
        exit_reason=exit_reason,
        weights=info.weights,
        normalization=info.normalization.as_dict(),
        preprocessing=preprocessing.described(config.data, info.normalization),
        classNames=list(info.class_names),
        accuracyTop1=progress.accuracy_top1,
        accuracyTop5=progress.accuracy_top5,
        # Without an average the accuracies above are of the network itself.
        rawAccuracyTop1=progress.raw_accuracy_top1,
        loss=progress.loss,
        # Both are -1 until something has been evaluated.
        bestAccuracyTop1=max(0.0, progress.best_accuracy),
        bestStep=max(0, progress.best_step),
        evaluatedStep=progress.evaluated_step,
        skippedSamples=progress.skipped_samples,
        skippedSteps=progress.skipped_steps,
        repeatedSteps=progress.repeated_steps,
        epochs=round(progress.step / info.steps_per_epoch, 6),
        globalBatch=info.global_batch,
        imagesPerSecond=round(progress.images_per_second, 3),
        seed=config.seed,
    )


def checkpoint_content(
    tensors: dict[str, Any],
    progress: Progress,
    config: TrainingConfig,
    info: RunInfo,
    splits: Splits,
) -> Checkpoint:
    """A checkpoint: the ``tensors`` of a snapshot, and plain values only.

    No state of a random generator: everything that is drawn is a function of counters.
    """
    return {
        "format": FORMAT,
        "version": __version__,
        **tensors,
        "progress": progress.as_dict(),
        "config": config.as_dict(),
        "fingerprint": full_fingerprint(config, splits, info.data_fingerprints),
        "preprocessing": preprocessing.described(config.data, info.normalization),
        "batch_norm_epsilon": config.model.batch_norm_epsilon,
        "weights": info.weights,
        "class_names": list(splits.class_names),
        "world_size": info.world_size,
        "precision": info.precision,
    }


def memory_header(config: TrainingConfig, info: RunInfo, splits: Splits) -> dict[str, Any]:
    """What the memory copies of a process have in common, as JSON has it."""
    header = {
        "format": FORMAT,
        "version": __version__,
        "config": config.as_dict(),
        "fingerprint": full_fingerprint(config, splits, info.data_fingerprints),
        "preprocessing": preprocessing.described(config.data, info.normalization),
        "weights": info.weights,
        "world_size": info.world_size,
    }
    plain: dict[str, Any] = json.loads(json.dumps(header))
    return plain


def full_fingerprint(
    config: TrainingConfig, splits: Splits, data_fingerprints: Mapping[str, str]
) -> dict[str, Any]:
    """The configuration's fingerprint and what was found in the data: what a resumed run is
    compared with (:mod:`inception_trainer.config.continuation`).
    """
    return {**continuation.fingerprint(config), **found(splits, data_fingerprints)}


def found(splits: Splits, data_fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """What was found in the data, wherever they are."""
    return {
        continuation.SAMPLES: len(splits.train),
        continuation.CLASSES: splits.num_classes,
        **{f"{continuation.FOUND}{name}": text for name, text in data_fingerprints.items()},
    }
