"""Mode Infer: classes and probabilities of images, in the order of the images, and latencies by
batch size.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inception_trainer import models
from inception_trainer.config import preprocessing
from inception_trainer.config.normalization import IMAGENET, Normalization
from inception_trainer.data import Batch
from inception_trainer.data.class_names import class_names
from inception_trainer.data.counter_rng import Indices
from inception_trainer.data.images import Images, files_to_classify, image_files, validation_images
from inception_trainer.data.synthetic import DEFAULT_CLASSES
from inception_trainer.log import logger
from inception_trainer.stores import place
from inception_trainer.train.compiling import compile_for_evaluation
from inception_trainer.train.network import build_network
from inception_trainer.train.step import Normalise
from inception_trainer.weights.trained_network import TrainedModel, open_trained

from . import latency
from .common import Boundary, Run, choose_normalization, input_type, rank_batch, with_preprocessing
from .predictions import Row, Writer, open_writer


def run(run: Run) -> dict[str, Any]:
    """Measure latencies, then classify; the predictions are equal at any number of ranks."""
    network, trained = _network(run)
    model = trained.model if trained else models.canonical(run.config.model.name)
    run.config = config = with_preprocessing(run.config, trained)
    models.check_image_size(model, config.data.image_size)
    images = _images(run, trained)
    normalization = choose_normalization(
        config, trained, images.normalization if images else IMAGENET
    )
    batch = rank_batch(run) * run.comm.world_size
    rounds = _rounds(images, batch)
    sweep_steps = len(config.inference.batch_sizes) * latency.steps_per_size(config)
    info = run.begin(network, model, sweep_steps + len(rounds), batch)
    sizes = {rank_batch(run), *config.inference.batch_sizes}
    network = compile_for_evaluation(network, config.execution, run.accelerator.device, sizes)
    classifier = Classifier(run, network, normalization)
    boundary = Boundary(run)
    sweep = latency.sweep(run, boundary, classifier.logits)
    figures: dict[str, Any] = {"latencies": sweep} if sweep else {}
    if images is not None:
        names = _class_names(run, trained, images)
        figures["classNames"] = list(names)
        figures |= _classify(run, boundary, classifier, _Work(images, rounds, sweep_steps, names))
    boundary.settle()
    weights: dict[str, Any] = {"weights": None}
    if trained:
        weights = {"weights": str(trained.path), "weightsStep": trained.step}
    described = preprocessing.described(config.data, normalization)
    return run.summary(
        info,
        normalization=normalization.as_dict(),
        preprocessing=described,
        **weights,
        **figures,
    )


class Classifier:
    """Pixels in host memory to probabilities in host memory."""

    def __init__(self, run: Run, network: nn.Module, normalization: Normalization) -> None:
        self._network = network
        self._accelerator = run.accelerator
        self._normalise = Normalise(normalization, run.accelerator.device, input_type(run, network))

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """uint8 ``[n, c, side, side]`` to logits ``[n, classes]`` in FP32 on the host: they have
        been waited for.
        """
        with self._accelerator.autocast():
            logits: Tensor = self._network(self._normalise(images))
        return logits.float().cpu()

    def best(self, batch: Batch, count: int) -> Tensor:
        """``[n, 1 + 2 count]``: label, ``count`` classes from the most probable on, their
        probabilities.
        """
        # In float64, which holds class numbers and probabilities alike, so that one collective
        # gathers both.
        probabilities = self.logits(batch.images).double().softmax(1)
        values, classes = probabilities.topk(count)
        return torch.cat((batch.labels[:, None].double(), classes.double(), values), 1)


@dataclass(frozen=True)
class _Work:
    """What is to be classified."""

    images: Images
    rounds: list[Indices]
    """What all ranks together classify at once."""
    first_step: int
    """Steps that were done before, by the latencies."""
    names: tuple[str, ...]
    """Of the classes."""


def _network(run: Run) -> tuple[nn.Module, TrainedModel | None]:
    """The trained network; a random one where nothing but its speed is asked for."""
    config, device = run.config, run.accelerator.device
    if config.inference.format != "None" or config.model.weights is not None:
        return open_trained(config, run.comm, device)
    classes = config.data.num_classes or DEFAULT_CLASSES
    network, _ = build_network(config, classes, run.comm, device, auxiliary=False)
    return network.eval(), None


def _images(run: Run, trained: TrainedModel | None) -> Images | None:
    inference = run.config.inference
    if inference.format == "None" or trained is None:
        return None
    if inference.path is None:
        images = validation_images(run.config)
        assert images.splits is not None  # noqa: S101 - it was made from them
        trained.check(images.splits)
        return images
    root = place(inference.path)
    # One rank lists the folder: others could see another one if something is just being written
    # there.
    files = run.comm.from_first(lambda: image_files(root))
    return files_to_classify(files, root, run.config.data)


def _rounds(images: Images | None, together: int) -> list[Indices]:
    """The images in their order, ``together`` at once."""
    count = len(images.dataset) if images else 0
    return [np.arange(at, min(at + together, count)) for at in range(0, count, together)]


def _class_names(run: Run, trained: TrainedModel | None, images: Images) -> tuple[str, ...]:
    assert trained is not None  # noqa: S101 - there are images
    of_data = images.splits.class_names if images.splits else ()
    names = trained.class_names or of_data
    path = run.config.inference.class_names
    return run.comm.from_first(lambda: class_names(path, names, trained.classes))


def _classify(run: Run, boundary: Boundary, classifier: Classifier, work: _Work) -> dict[str, Any]:
    inference = run.config.inference
    # There are no more classes than the network knows.
    count = min(inference.top_classes, len(work.names))
    images = len(work.images.dataset)
    logger.info("classifying %d images with %d ranks", images, run.comm.world_size)
    began = time.monotonic()
    with open_writer(run, count, work.images.labelled) as writer:
        readable = _write_rows(run, boundary, classifier, work, writer)
    seconds = time.monotonic() - began
    return {
        "predictions": str(writer.path) if writer.path else None,
        "predictionsFormat": inference.format,
        "samples": readable,
        "skippedSamples": images - readable,
        "imagesPerSecond": round(images / max(seconds, 1e-9), 3),
    }


def _write_rows(
    run: Run, boundary: Boundary, classifier: Classifier, work: _Work, writer: Writer
) -> int:
    """Write all rows in the order of the images; returns how many images could be read."""
    comm = run.comm
    readable = 0
    size = math.ceil(max(map(len, work.rounds)) / comm.world_size)
    # A slice of every round for each rank, so that a gathered round is in the order of the images.
    own = slice(comm.rank * size, (comm.rank + 1) * size)
    with work.images.dataset.stream([indices[own] for indices in work.rounds], None) as stream:
        for number, indices in enumerate(work.rounds, work.first_step + 1):
            boundary.check()
            best = _padded(classifier.best(next(stream), writer.count), size)
            gathered = comm.gather(best).flatten(0, 1)[: len(indices)]
            pairs = zip(indices, gathered.tolist(), strict=True)
            rows = [_row(work, int(index), values) for index, values in pairs]
            writer.write(rows)
            readable += sum(row.classes is not None for row in rows)
            run.step(number, len(indices), "infer")
    return readable


def _padded(values: Tensor, size: int) -> Tensor:
    """All ranks gather tensors of one shape; only the last rows of a round are made up."""
    return torch.cat((values, values.new_zeros(size - len(values), values.shape[1])))


def _row(work: _Work, index: int, values: list[float]) -> Row:
    """One line of :meth:`Classifier.best` as a row of the file."""
    label = int(values[0])
    count = (len(values) - 1) // 2
    name = work.images.name(index)
    # NO_LABEL is -1, UNREADABLE is below it.
    if label < -1:
        return Row(name)
    numbers = [int(value) for value in values[1 : 1 + count]]
    probabilities = values[1 + count :]
    pairs = zip(numbers, probabilities, strict=True)
    classes = tuple((number, work.names[number], value) for number, value in pairs)
    return Row(name, work.names[label] if work.images.labelled else None, classes)
