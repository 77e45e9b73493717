"""Mode Evaluate: a trained network on the validation split, every image once over all ranks."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from inception_trainer import models
from inception_trainer.config.normalization import choose
from inception_trainer.data import open_splits
from inception_trainer.log import logger
from inception_trainer.train.evaluation import Evaluation, Evaluator
from inception_trainer.train.results import evaluation_record
from inception_trainer.train.step import Normalise
from inception_trainer.weights.trained_network import TrainedModel, open_trained

from .common import Run, rank_batch, stopped


def run(run: Run) -> dict[str, Any]:
    """Measure top-1, top-5 and loss; the figures are equal on all ranks."""
    config, comm = run.config, run.comm
    network, trained = open_trained(config, comm, run.accelerator.device)
    models.check_image_size(trained.model, config.data.image_size)
    splits = open_splits(config)
    # Accuracies mean nothing where class 3 of the network is class 4 of the data.
    trained.check(splits)
    normalization = choose(config.data.normalization, splits.normalization, trained.normalization)
    normalise = Normalise(normalization, run.accelerator.device)
    batch = rank_batch(run)
    evaluator = Evaluator(network, splits.val, run.accelerator, normalise, comm, batch)
    rounds = evaluator.rounds
    info = run.begin(network, trained.model, rounds, batch * comm.world_size)
    logger.info(
        "evaluating %s on %d images with %d ranks", trained.path, len(splits.val), comm.world_size
    )

    def advance(done: int) -> None:
        left = len(splits.val) - run.samples_seen
        run.step(done, min(left, batch * comm.world_size), "val")

    with closing(splits):
        result = evaluator.run(run.stop.requested, advance)
    if result is None:
        raise stopped()
    # No samples of the pod: they were counted batch by batch.
    record = evaluation_record(result, step=rounds, epoch=0.0, pod_samples=0, is_best=False)
    run.bus.evaluation(record)
    return run.summary(
        info, normalization=normalization.as_dict(), **_figures(result, trained, rounds)
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
