"""Mode Infer: classes and probabilities of images, in the order of the images, and latencies by
batch size.

Reading, copying, computing and writing go on side by side: loader workers read and a thread brings
batches into pinned memory, the device gets a batch before the results of the one before are waited
for, and a thread writes rows.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inception_trainer import models
from inception_trainer.config import preprocessing
from inception_trainer.config.normalization import IMAGENET, Normalization
from inception_trainer.data import Batch
from inception_trainer.data.class_names import class_names, readable
from inception_trainer.data.counter_rng import Indices
from inception_trainer.data.images import Images, files_to_classify, image_files, validation_images
from inception_trainer.data.synthetic import DEFAULT_CLASSES
from inception_trainer.device import StepTimes, transfers
from inception_trainer.log import logger
from inception_trainer.stores import place
from inception_trainer.train.compiling import compile_for_evaluation
from inception_trainer.train.network import build_network
from inception_trainer.train.prefetch import beside, stream_batches
from inception_trainer.train.setup import check_same_data
from inception_trainer.train.step import Normalise
from inception_trainer.weights.trained_network import TrainedModel, open_trained, origin

from . import latency
from .common import (
    Boundary,
    Run,
    choose_normalization,
    input_type,
    not_finite,
    rank_batch,
    with_preprocessing,
)
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
        work = _Work(images, rounds, sweep_steps, names, trained.path if trained else None)
        figures |= _classify(run, boundary, classifier, work)
    boundary.settle()
    weights: dict[str, Any] = {"weights": None}
    if trained:
        weights = {"weights": origin(config, trained.path), "weightsStep": trained.step}
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

    @property
    def ahead(self) -> int:
        """Batches that are given to the device before the results of an earlier one are waited
        for.
        """
        return 1 if transfers.has_async_copy(self._accelerator.device) else 0

    def logits(self, images: Tensor) -> Tensor:
        """uint8 ``[n, c, side, side]`` to logits ``[n, classes]`` in FP32 on the host: they have
        been waited for.
        """
        return self._compute(images).cpu()

    def start(self, batch: Batch) -> Computed:
        """Give a batch to the device; where it copies on its own nothing is waited for."""
        logits = self._compute(batch.images)
        if not transfers.has_async_copy(logits.device):
            return Computed(batch, logits.cpu(), lambda: None)
        results = torch.empty(logits.shape, pin_memory=True)
        results.copy_(logits, non_blocking=True)
        return Computed(batch, results, transfers.mark(logits.device))

    @torch.inference_mode()
    def _compute(self, images: Tensor) -> Tensor:
        # In the last round a rank may have none, and not every network takes so few.
        some = images if len(images) else images.new_zeros(1, *images.shape[1:])
        with self._accelerator.autocast():
            logits: Tensor = self._network(self._normalise(some))
        return logits[: len(images)].float()


@dataclass(frozen=True)
class Computed:
    """A batch that the device has got."""

    batch: Batch
    logits: Tensor
    """FP32 ``[n, classes]`` in host memory, complete once ``wait`` has returned."""
    wait: Callable[[], None]

    def best(self, count: int) -> Tensor:
        """``[n, 1 + 2 count]``: label, ``count`` classes from the most probable on, their
        probabilities.
        """
        self.wait()
        # In float64, which holds class numbers and probabilities alike, so that one collective
        # gathers both.
        values, classes = self.logits.double().softmax(1).topk(count)
        return torch.cat((self.batch.labels[:, None].double(), classes.double(), values), 1)


_Rows = tuple[Indices, Tensor]
"""Sample numbers of a round, and the lines of :meth:`Computed.best` of all ranks for them."""


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
    path: Path | None = None
    """Of the weights."""


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
        check_same_data(run.comm, images.splits)
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
    names = trained.names(images.splits)
    path = run.config.inference.class_names
    return run.comm.from_first(lambda: class_names(path, readable(names), trained.classes))


def _classify(run: Run, boundary: Boundary, classifier: Classifier, work: _Work) -> dict[str, Any]:
    inference = run.config.inference
    # There are no more classes than the network knows.
    count = min(inference.top_classes, len(work.names))
    images = len(work.images.dataset)
    logger.info("classifying %d images with %d ranks", images, run.comm.world_size)
    began = time.monotonic()
    with (
        closing(work.images.dataset),
        open_writer(run, count, work.images.labelled) as writer,
    ):
        pipeline = _Pipeline(run, classifier, work, writer)
        readable = pipeline.classify(boundary)
    seconds = time.monotonic() - began
    return {
        "predictions": run.place_of(writer.path) if writer.path else None,
        "predictionsFormat": inference.format,
        "samples": readable,
        "skippedSamples": images - readable,
        "imagesPerSecond": round(images / max(seconds, 1e-9), 3),
        **pipeline.figures(),
    }


@dataclass(frozen=True)
class _InFlight:
    """A round whose results are not here yet."""

    number: int
    indices: Indices
    computed: Computed
    came: float
    """When its pixels were in host memory."""
    waited: float
    """Seconds that they were waited for."""


class _Pipeline:
    """Reads, computes and writes all rounds, several of them at once."""

    def __init__(self, run: Run, classifier: Classifier, work: _Work, writer: Writer) -> None:
        self._run = run
        self._classifier = classifier
        self._work = work
        self._writer = writer
        self._size = math.ceil(max(map(len, work.rounds)) / run.comm.world_size)
        """Images of a rank in each round."""
        self._readable = 0
        self._latencies: list[float] = []
        self._seconds = dict.fromkeys(("images", "results", "rows"), 0.0)
        """What this rank has waited for, in seconds."""

    def classify(self, boundary: Boundary) -> int:
        """Write all rows in the order of the images; returns how many images could be read."""
        comm, rounds = self._run.comm, self._work.rounds
        # A slice of every round for each rank, so that a gathered round is in the order of the
        # images.
        own = slice(comm.rank * self._size, (comm.rank + 1) * self._size)
        batches = [indices[own] for indices in rounds]
        device = self._run.accelerator.device
        flying: deque[_InFlight] = deque()
        with (
            stream_batches(self._work.images.dataset, batches, None, device) as stream,
            beside(self._write, "rows") as write,
        ):
            for number, indices in enumerate(rounds, self._work.first_step + 1):
                boundary.check()
                flying.append(self._begin(number, indices, stream))
                if len(flying) > self._classifier.ahead:
                    self._finish(flying.popleft(), write)
            while flying:
                self._finish(flying.popleft(), write)
        return self._readable

    def figures(self) -> dict[str, Any]:
        """For the summary: what a batch takes from its pixels to its results, and where this rank
        waited.
        """
        return {
            "batchLatency": latency.percentiles(self._size, self._latencies),
            "waitedSeconds": {name: round(value, 3) for name, value in self._seconds.items()},
        }

    def _begin(self, number: int, indices: Indices, stream: Iterator[Batch]) -> _InFlight:
        asked = time.perf_counter()
        batch = next(stream)
        came = time.perf_counter()
        computed = self._classifier.start(batch)
        self._seconds["images"] += came - asked
        return _InFlight(number, indices, computed, came, came - asked)

    def _finish(self, flight: _InFlight, write: Callable[[_Rows], None]) -> None:
        asked = time.perf_counter()
        best = flight.computed.best(self._writer.count)
        done = time.perf_counter()
        self._seconds["results"] += done - asked
        self._latencies.append(done - flight.came)
        gathered = self._run.comm.gather(_padded(best, self._size)).flatten(0, 1)
        # On all ranks at once. One infinite logit makes all probabilities of its image NaN.
        if gathered.isnan().any():
            raise not_finite(self._run, self._work.path)
        asked = time.perf_counter()
        write((flight.indices, gathered[: len(flight.indices)]))
        self._seconds["rows"] += time.perf_counter() - asked
        self._run.step(flight.number, len(flight.indices), "infer")
        times = StepTimes(flight.number, flight.waited, done - flight.came)
        self._run.bus.step_times(times)

    def _write(self, rows: _Rows) -> None:
        """In a thread of its own."""
        pairs = zip(rows[0], rows[1].tolist(), strict=True)
        written = [_row(self._work, int(index), values) for index, values in pairs]
        self._writer.write(written)
        self._readable += sum(row.classes is not None for row in written)


def _padded(values: Tensor, size: int) -> Tensor:
    """All ranks gather tensors of one shape; only the last rows of a round are made up."""
    return torch.cat((values, values.new_zeros(size - len(values), values.shape[1])))


def _row(work: _Work, index: int, values: list[float]) -> Row:
    """One line of :meth:`Computed.best` as a row of the file."""
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
