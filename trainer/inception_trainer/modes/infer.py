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
from inception_trainer.config.normalization import IMAGENET, Normalization, choose
from inception_trainer.data import Batch
from inception_trainer.data.base import Indices
from inception_trainer.data.class_names import class_names
from inception_trainer.data.images import Images, files_to_classify, image_files, validation_images
from inception_trainer.data.synthetic import DEFAULT_CLASSES
from inception_trainer.log import logger
from inception_trainer.stores import place
from inception_trainer.train.state import share
from inception_trainer.train.step import Normalise
from inception_trainer.weights.trained_network import TrainedModel, open_trained

from . import latency
from .common import Boundary, Run, sized
from .predictions import Row, Writer, open_writer


def run(run: Run) -> dict[str, Any]:
    """Measure latencies, then classify; the predictions are equal at any number of ranks."""
    network, trained = _network(run)
    run.config = config = sized(run.config, trained)
    models.check_image_size(_name(run, trained), config.data.image_size)
    images = _images(run, trained)
    of_data = images.normalization if images else IMAGENET
    chosen = choose(config.data.normalization, of_data, trained.normalization if trained else None)
    batch = config.batch.per_device or max(1, config.batch.global_ // run.comm.world_size)
    rounds = _rounds(run, images, batch)
    first = len(config.inference.batch_sizes) * (
        config.benchmark.warmup_steps + config.benchmark.steps
    )
    info = run.begin(network, _name(run, trained), first + len(rounds), batch * run.comm.world_size)
    classifier = Classifier(run, network, chosen)
    boundary = Boundary(run)
    sweep = latency.sweep(run, boundary, classifier.logits)
    figures = {"latencies": sweep} if sweep else {}
    if images is not None:
        figures |= _classify(
            run,
            boundary,
            classifier,
            _Work(images, rounds, first, _class_names(run, trained, images)),
        )
    boundary.settle()
    weights = (
        {"weights": str(trained.path), "weightsStep": trained.step}
        if trained
        else {"weights": None}
    )
    return run.summary(info, normalization=chosen.as_dict(), **weights, **figures)


class Classifier:
    """Pixels in host memory to probabilities in host memory."""

    def __init__(self, run: Run, network: nn.Module, normalization: Normalization) -> None:
        self._network, self._accelerator = network, run.accelerator
        self._normalise = Normalise(normalization, run.accelerator.device)
        self._top = run.config.inference.top_classes

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """``[n, classes]`` in FP32 on the host: it has been waited for."""
        with self._accelerator.autocast():
            logits: Tensor = self._network(self._normalise(images))
        return logits.float().cpu()

    def best(self, batch: Batch) -> Tensor:
        """``[n, 1 + 2k]``: label, k classes from the most probable on, their probabilities."""
        values, classes = self.logits(batch.images).double().softmax(1).topk(self.count)
        return torch.cat((batch.labels[:, None].double(), classes.double(), values), 1)

    def limit(self, classes: int) -> None:
        """There are no more classes than the network knows."""
        self.count = min(self._top, classes)


@dataclass(frozen=True)
class _Work:
    images: Images
    rounds: list[Indices]
    """What all ranks together classify at once."""
    first_step: int
    names: tuple[str, ...]


def _network(run: Run) -> tuple[nn.Module, TrainedModel | None]:
    """The trained network; a random one where nothing but its speed is asked for."""
    config, device = run.config, run.accelerator.device
    if config.inference.format != "None" or config.model.weights is not None:
        return open_trained(config, run.comm, device)
    torch.manual_seed(config.seed)
    network = models.create(config.model.name, config.data.num_classes or DEFAULT_CLASSES)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    share([*network.parameters(), *network.buffers()], run.comm)
    return network.eval(), None


def _name(run: Run, trained: TrainedModel | None) -> str:
    return trained.model if trained else models.canonical(run.config.model.name)


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


def _rounds(run: Run, images: Images | None, batch: int) -> list[Indices]:
    count, together = len(images.dataset) if images else 0, batch * run.comm.world_size
    return [np.arange(at, min(at + together, count)) for at in range(0, count, together)]


def _class_names(run: Run, trained: TrainedModel | None, images: Images) -> tuple[str, ...]:
    assert trained is not None  # noqa: S101 - there are images
    of_data = images.splits.class_names if images.splits else ()
    known = trained.class_names or of_data
    return run.comm.from_first(
        lambda: class_names(run.config.inference.class_names, known, trained.classes)
    )


def _classify(run: Run, boundary: Boundary, classifier: Classifier, work: _Work) -> dict[str, Any]:
    comm, inference = run.comm, run.config.inference
    classifier.limit(len(work.names))
    logger.info("classifying %d images with %d ranks", len(work.images.dataset), comm.world_size)
    began = time.monotonic()
    with open_writer(run, classifier.count, work.images.labelled) as writer:
        readable = _rows(run, boundary, classifier, work, writer)
    seconds, images = time.monotonic() - began, len(work.images.dataset)
    return {
        "predictions": str(writer.path) if writer.path else None,
        "predictionsFormat": inference.format,
        "samples": readable,
        "skippedSamples": images - readable,
        "imagesPerSecond": round(images / max(seconds, 1e-9), 3),
    }


def _rows(run: Run, boundary: Boundary, classifier: Classifier, work: _Work, writer: Writer) -> int:
    """Write all rows in the order of the images; how many images could be read."""
    comm, readable = run.comm, 0
    size = math.ceil(max(map(len, work.rounds)) / comm.world_size)
    shares = [indices[comm.rank * size : (comm.rank + 1) * size] for indices in work.rounds]
    with work.images.dataset.stream(shares, None) as stream:
        for number, indices in enumerate(work.rounds):
            boundary.check()
            found = comm.gather(_padded(classifier.best(next(stream)), size)).flatten(0, 1)[
                : len(indices)
            ]
            rows = [
                _row(work, int(i), values)
                for i, values in zip(indices, found.tolist(), strict=True)
            ]
            writer.write(rows)
            readable += sum(row.classes is not None for row in rows)
            run.step(work.first_step + number + 1, len(indices), "infer")
    return readable


def _padded(values: Tensor, size: int) -> Tensor:
    """All ranks gather tensors of one shape; only the last rows of a round are made up."""
    return torch.cat((values, values.new_zeros(size - len(values), values.shape[1])))


def _row(work: _Work, index: int, values: list[float]) -> Row:
    label, count = int(values[0]), (len(values) - 1) // 2
    name = work.images.name(index)
    if label < -1:
        return Row(name)
    classes = [int(value) for value in values[1 : 1 + count]]
    return Row(
        name,
        work.names[label] if work.images.labelled else None,
        tuple(
            (number, work.names[number], value)
            for number, value in zip(classes, values[1 + count :], strict=True)
        ),
    )
