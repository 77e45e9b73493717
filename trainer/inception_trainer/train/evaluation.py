"""Accuracy over the validation set: every image once, on exactly one rank, counts added up once at
the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from inception_trainer.comm import Agreement, Comm
from inception_trainer.data import Batch, Dataset
from inception_trainer.data.counter_rng import Indices
from inception_trainer.data.sampler import evaluation_indices
from inception_trainer.device import Accelerator
from inception_trainer.errors import DataError

from .prefetch import stream_batches
from .step import Normalise, count_hits

STOP = "stop"
NO_BETTER = 0.98
"""A loss this share below that of guessing shows that something was learnt."""
Advance = Callable[[int, float, float], None]
"""Told how many batches every rank has done, and the seconds in which this rank waited for the last
one and computed it.
"""


@dataclass(frozen=True)
class Evaluation:
    """Loss is the mean over the images, without smoothing; accuracies are 0 to 1."""

    loss: float
    accuracy_top1: float
    accuracy_top5: float
    samples: int
    seconds: float
    skipped: int = 0
    """Images that could not be read."""
    data_seconds: float = 0.0
    """How long this rank waited for data."""
    batch_seconds: tuple[float, ...] = ()
    """What each batch of this rank took to compute."""


def looks_like_guessing(result: Evaluation, classes: int) -> bool:
    """Whether a network may as well have guessed: so few images of ``classes`` are right, and the
    loss is no smaller than that of giving all classes the same probability.

    Guessing hits one image in ``classes``; of few images it may hit some more, within three
    standard deviations. Twice as much is learning where the classes are many, and half of the way
    to every image where they are few.
    """
    guess = 1 / classes
    deviation = math.sqrt(guess * (1 - guess) / result.samples)
    most = min(guess + 3 * deviation, 2 * guess, (1 + guess) / 2)
    return result.accuracy_top1 <= most and result.loss >= NO_BETTER * math.log(classes)


class Guesses(NamedTuple):
    """What a network takes the images of a batch for, in host memory."""

    confidence: torch.Tensor
    """The probability of the predicted class, FP32 ``[n]``."""
    predicted: torch.Tensor
    """int64 ``[n]``."""


@dataclass(frozen=True)
class Seen:
    """A batch that was evaluated."""

    indices: Indices
    """Sample numbers, ``[n]``."""
    images: torch.Tensor
    """As they came from the dataset, uint8."""
    logits: torch.Tensor
    """FP32, ``[n, classes]``."""
    labels: torch.Tensor
    """int64 ``[n]``, on the device of the logits; negative where an image could not be read."""

    @cached_property
    def guesses(self) -> Guesses:
        """Computed once, for all who look at the batch."""
        confidence, predicted = self.logits.float().softmax(1).max(1)
        return Guesses(confidence.cpu(), predicted.cpu())


class Evaluator:
    """Runs the bare network, ``batch`` images at a time; every rank must call it, also one that has
    no images.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        accelerator: Accelerator,
        normalise: Normalise,
        comm: Comm,
        batch: int,
        observe: Callable[[Seen], None] | None = None,
    ) -> None:
        """``observe`` is handed every batch of this rank."""
        self._model = model
        self._dataset = dataset
        self._accelerator = accelerator
        self._normalise = normalise
        self._comm = comm
        self._batch = batch
        self._observe = observe
        self._waited = 0.0
        self._batch_seconds: list[float] = []

    def run(
        self,
        stop_requested: Callable[[], bool],
        advance: Advance = lambda _batches, _waited, _computed: None,
    ) -> Evaluation | None:
        """Measure; None on all ranks when any of them was asked to stop meanwhile."""
        began = time.monotonic()
        self._model.eval()
        try:
            with torch.inference_mode():
                sums = self._sums(stop_requested, advance)
        finally:
            self._model.train()
        return None if sums is None else self._result(sums, time.monotonic() - began)

    @property
    def rounds(self) -> int:
        """Batches of the rank that has the most images; so often do all ranks agree."""
        most = math.ceil(len(self._dataset) / self._comm.world_size)
        return math.ceil(most / self._batch)

    def _sums(self, stop_requested: Callable[[], bool], advance: Advance) -> torch.Tensor | None:
        """``[loss, top-1, top-5, counted, skipped]`` of this rank's images."""
        indices = evaluation_indices(len(self._dataset), self._comm.rank, self._comm.world_size)
        starts = range(0, len(indices), self._batch)
        batches = [indices[start : start + self._batch] for start in starts]
        agreement = Agreement(self._comm, (STOP,))
        self._waited = 0.0
        self._batch_seconds = []
        sums = torch.zeros(5, dtype=torch.float64)
        with stream_batches(self._dataset, batches, None, self._accelerator.device) as stream:
            for done in range(1, self.rounds + 1):
                if agreement.decided():
                    return None
                agreement.propose({STOP: stop_requested()})
                asked = time.perf_counter()
                batch = next(stream, None)
                came = time.perf_counter()
                self._waited += came - asked
                computed = 0.0
                if batch is not None:
                    sums += self._count(batch, batches[done - 1])
                    computed = time.perf_counter() - came
                    self._batch_seconds.append(computed)
                advance(done, came - asked, computed)
        # The process group must not be left with the last agreement in flight.
        agreement.decided()
        return sums

    def _count(self, batch: Batch, indices: Indices) -> torch.Tensor:
        """What :func:`count_hits` says of one batch, in host memory: it has been waited for."""
        labels = batch.labels.to(self._accelerator.device, non_blocking=True)
        with self._accelerator.autocast():
            logits = self._model(self._normalise(batch.images)).float()
        if self._observe is not None:
            self._observe(Seen(indices, batch.images, logits, labels))
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        # To float64 before adding up: 50,000 losses in float32 lose digits that tests compare. On
        # the host, because many devices have no float64.
        return count_hits(loss, logits, labels).cpu().double()

    def _result(self, sums: torch.Tensor, seconds: float) -> Evaluation:
        loss, top1, top5, counted, skipped = self._comm.sum(sums.clone()).tolist()
        # An accuracy over some of the images must never pass for one over all of them.
        if counted + skipped != len(self._dataset) or not counted:
            raise DataError(
                f"evaluated {counted:.0f} (+ {skipped:.0f} unreadable) "
                f"of {len(self._dataset)} images"
            )
        return Evaluation(
            loss=loss / counted,
            accuracy_top1=top1 / counted,
            accuracy_top5=top5 / counted,
            samples=int(counted),
            seconds=seconds,
            skipped=int(skipped),
            data_seconds=self._waited,
            batch_seconds=tuple(self._batch_seconds),
        )
