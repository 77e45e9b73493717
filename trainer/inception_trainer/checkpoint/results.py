"""What a run leaves behind: the content of a checkpoint and of summary.json."""

from __future__ import annotations

from typing import Any

import torch

from inception_trainer import __version__
from inception_trainer.config.training import TrainingConfig, fingerprint
from inception_trainer.data import Splits
from inception_trainer.reporting.progress import Progress
from inception_trainer.reporting.records import RunInfo

from .base import FORMAT, Checkpoint


def payload_of(
    tensors: dict[str, Any],
    progress: Progress,
    config: TrainingConfig,
    info: RunInfo,
    splits: Splits,
) -> Checkpoint:
    """A checkpoint: the tensors, and plain values only."""
    return {
        "format": FORMAT,
        "version": __version__,
        **tensors,
        "progress": progress.as_dict(),
        "config": config.as_dict(),
        "fingerprint": full_fingerprint(config, splits),
        "preprocessing": {**info.normalization.as_dict(), "imageSize": config.data.image_size},
        "weights": info.weights,
        "class_names": list(splits.class_names),
        "world_size": info.world_size,
        "precision": info.precision,
    }


def full_fingerprint(config: TrainingConfig, splits: Splits) -> dict[str, Any]:
    """The configuration's fingerprint and what was found in the data."""
    return {
        **fingerprint(config),
        "data.found.samples": len(splits.train),
        "data.found.classes": splits.num_classes,
    }


def summary_of(
    progress: Progress, config: TrainingConfig, info: RunInfo, reason: str
) -> dict[str, Any]:
    """The figures of summary.json; accuracies are 0 to 1, of the last evaluation."""
    return {
        "job": info.job,
        "mode": config.mode,
        "exitReason": reason,
        "model": info.model,
        "recipe": config.recipe,
        "weights": info.weights,
        "normalization": info.normalization.as_dict(),
        "accuracyTop1": progress.accuracy_top1,
        "accuracyTop5": progress.accuracy_top5,
        "loss": progress.loss,
        "bestAccuracyTop1": max(0.0, progress.best_accuracy),
        "bestStep": max(0, progress.best_step),
        "evaluatedStep": progress.evaluated_step,
        "samplesSeen": progress.samples_seen,
        "skippedSamples": progress.skipped_samples,
        "skippedSteps": progress.skipped_steps,
        "steps": progress.step,
        "epochs": round(progress.step / info.steps_per_epoch, 6),
        "globalBatch": info.global_batch,
        "imagesPerSecond": round(progress.images_per_second, 3),
        "wallSeconds": round(progress.wall_seconds, 3),
        "attempts": info.attempt,
        "parameters": info.parameters,
        "precision": info.precision,
        "worldSize": info.world_size,
        "device": info.device,
        "profile": info.profile,
        "backend": info.backend,
        "seed": config.seed,
        "versions": {"trainer": __version__, "torch": str(torch.__version__)},
    }
