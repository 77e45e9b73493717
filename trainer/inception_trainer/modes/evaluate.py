"""Mode Evaluate: a trained network on the validation split, every image once over all ranks."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any

from inception_trainer import models
from inception_trainer.config import preprocessing
from inception_trainer.data import open_splits
from inception_trainer.data.class_names import class_names, readable
from inception_trainer.device import StepTimes
from inception_trainer.log import logger
from inception_trainer.train.compiling import compile_for_evaluation
from inception_trainer.train.evaluation import Evaluation, Evaluator, Seen
from inception_trainer.train.results import evaluation_record
from inception_trainer.train.setup import check_same_data
from inception_trainer.train.step import Normalise
from inception_trainer.weights.trained_network import TrainedModel, open_trained, origin

from . import by_class as by_class_files
from . import mistakes
from .by_class import ByClass
from .common import (
    Run,
    choose_normalization,
    input_type,
    not_finite,
    rank_batch,
    stopped,
    with_preprocessing,
)
from .mistakes import Worst


def run(run: Run) -> dict[str, Any]:
    """Measure top-1, top-5 and loss; the figures are equal on all ranks."""
    config, comm = run.config, run.comm
    network, trained = open_trained(config, comm, run.accelerator.device)
    run.config = config = with_preprocessing(config, trained)
    models.check_image_size(trained.model, config.data.image_size)
    splits = open_splits(config)
    check_same_data(comm, splits)
    # Accuracies mean nothing where class 3 of the network is class 4 of the data.
    trained.check(splits)
    normalization = choose_normalization(config, trained, splits.normalization)
    normalise = Normalise(normalization, run.accelerator.device, input_type(run, network))
    batch = rank_batch(run)
    by_class = ByClass(trained.classes)
    network = compile_for_evaluation(network, config.execution, run.accelerator.device, {batch})
    worst = Worst()

    def observe(seen: Seen) -> None:
        by_class.add(seen)
        worst.add(seen)

    evaluator = Evaluator(network, splits.val, run.accelerator, normalise, comm, batch, observe)
    rounds = evaluator.rounds
    info = run.begin(network, trained.model, rounds, batch * comm.world_size)
    logger.info(
        "evaluating %s on %d images with %d ranks", trained.path, len(splits.val), comm.world_size
    )

    def advance(done: int, waited: float, computed: float) -> None:
        left = len(splits.val) - run.samples_seen
        run.step(done, min(left, batch * comm.world_size), "val", waited + computed)
        run.bus.step_times(StepTimes(done, waited, computed))

    with closing(splits):
        result = evaluator.run(run.stop.requested, advance)
    if result is None:
        raise stopped()
    if not math.isfinite(result.loss):
        raise not_finite(run, trained.path)
    # No samples of the pod: they were counted batch by batch.
    record = evaluation_record(result, step=rounds, epoch=0.0, pod_samples=0, is_best=False)
    run.bus.evaluation(record)
    classes = by_class.result(comm)
    mistaken = worst.result(comm)
    if comm.is_first and run.output is not None:
        names = readable(trained.names(splits))
        labels = class_names(None, names, trained.classes)
        by_class_files.write(classes, labels, run.output)
        mistakes.write(mistaken, labels, splits.val.name, run.output)
    return run.summary(
        info,
        normalization=normalization.as_dict(),
        preprocessing=preprocessing.described(config.data, normalization),
        classNames=list(trained.names(splits)),
        weights=origin(config, trained.path),
        **_figures(result, trained, rounds),
        **classes.figures(),
    )


def _figures(result: Evaluation, trained: TrainedModel, rounds: int) -> dict[str, Any]:
    return {
        "weightsStep": trained.step,
        "accuracyTop1": result.accuracy_top1,
        "accuracyTop5": result.accuracy_top5,
        "loss": result.loss,
        "evaluatedStep": rounds,
        "samples": result.samples,
        "skippedSamples": result.skipped,
        "imagesPerSecond": round(result.samples / max(result.seconds, 1e-9), 3),
    }
