"""Mode Evaluate: a trained network on the validation split, every image once over all ranks."""

from __future__ import annotations

import math
from typing import Any

from inception_trainer import models
from inception_trainer.config.normalization import choose
from inception_trainer.data import open_splits
from inception_trainer.log import logger
from inception_trainer.reporting.records import EvaluationRecord
from inception_trainer.train.evaluation import Evaluation, Evaluator
from inception_trainer.train.step import Normalise
from inception_trainer.weights.trained_network import TrainedModel, open_trained

from .common import Run, stopped


def run(run: Run) -> dict[str, Any]:
    """Measure top-1, top-5 and loss; the figures are equal on all ranks."""
    config, comm = run.config, run.comm
    network, trained = open_trained(config, comm, run.accelerator.device)
    models.check_image_size(trained.model, config.data.image_size)
    splits = open_splits(config)
    trained.check(splits)
    chosen = choose(config.data.normalization, splits.normalization, trained.normalization)
    normalise = Normalise(chosen, run.accelerator.device)
    batch = config.batch.per_device or max(1, config.batch.global_ // comm.world_size)
    rounds = math.ceil(math.ceil(len(splits.val) / comm.world_size) / batch)
    info = run.begin(network, trained.model, rounds, batch * comm.world_size)
    logger.info(
        "evaluating %s on %d images with %d ranks", trained.path, len(splits.val), comm.world_size
    )
    evaluator = Evaluator(network, splits.val, run.accelerator, normalise, comm, batch)

    def advance(done: int) -> None:
        left = len(splits.val) - run.samples_seen
        run.step(done, min(left, batch * comm.world_size), "val")

    result = evaluator.run(run.stop.requested, advance)
    if result is None:
        raise stopped()
    _report(run, result, rounds)
    return run.summary(info, normalization=chosen.as_dict(), **_figures(result, trained, rounds))


def _report(run: Run, result: Evaluation, rounds: int) -> None:
    run.bus.evaluation(
        EvaluationRecord(
            step=rounds,
            epoch=0.0,
            loss=result.loss,
            accuracy_top1=result.accuracy_top1,
            accuracy_top5=result.accuracy_top5,
            samples=result.samples,
            pod_samples=0,  # counted batch by batch
            seconds=result.seconds,
            is_best=False,
            data_seconds=result.data_seconds,
            batch_seconds=result.batch_seconds,
        )
    )


def _figures(result: Evaluation, trained: TrainedModel, rounds: int) -> dict[str, Any]:
    return {
        "weights": str(trained.path),
        "weightsStep": trained.step,
        "accuracyTop1": result.accuracy_top1,
        "accuracyTop5": result.accuracy_top5,
        "loss": result.loss,
        "evaluatedStep": rounds,
        "samples": result.samples,
        "skippedSamples": result.skipped,
        "imagesPerSecond": round(result.samples / max(result.seconds, 1e-9), 3),
    }
