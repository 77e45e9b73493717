"""Accuracy over the validation set: every image once, on exactly one rank, counts added up once at
the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from inception_trainer.comm import Agreement, Comm
from inception_trainer.data import Dataset, streamed
from inception_trainer.device import Accelerator
from inception_trainer.errors import DataError

from .schedule import evaluation_share
from .step import Normalise, count_hits

STOP = "stop"


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


class Evaluator:
    """Runs the bare network; every rank must call it, also one whose share is empty."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        accelerator: Accelerator,
        normalise: Normalise,
        comm: Comm,
        batch: int,
    ) -> None:
        self._model, self._dataset, self._accelerator = model, dataset, accelerator
        self._normalise, self._comm, self._batch = normalise, comm, batch
        self._waited = 0.0
        self._taken: list[float] = []

    def run(
        self,
        stop_requested: Callable[[], bool],
        advance: Callable[[int], None] = lambda _batches: None,
    ) -> Evaluation | None:
        """Measure; None on all ranks when any of them was asked to stop meanwhile.

        ``advance`` is told how many batches every rank has done.
        """
        began = time.monotonic()
        self._model.eval()
        try:
            with torch.inference_mode():
                sums = self._sums(stop_requested, advance)
        finally:
            self._model.train()
        return None if sums is None else self._result(sums, time.monotonic() - began)

    def _sums(
        self, stop_requested: Callable[[], bool], advance: Callable[[int], None]
    ) -> torch.Tensor | None:
        share = evaluation_share(len(self._dataset), self._comm.rank, self._comm.world_size)
        batches = [share[i : i + self._batch] for i in range(0, len(share), self._batch)]
        rounds = math.ceil(math.ceil(len(self._dataset) / self._comm.world_size) / self._batch)
        agreement = Agreement(self._comm, (STOP,))
        self._waited, self._taken = 0.0, []
        sums = torch.zeros(5, dtype=torch.float64)
        with streamed(self._dataset, batches, None, self._accelerator.device) as stream:
            for done in range(1, rounds + 1):
                if agreement.decided():
                    return None
                agreement.propose({STOP: stop_requested()})
                asked = time.perf_counter()
                batch = next(stream, None)
                came = time.perf_counter()
                self._waited += came - asked
                if batch is not None:
                    sums += self._counts(batch.images, batch.labels)
                    self._taken.append(time.perf_counter() - came)
                advance(done)
        agreement.decided()
        return sums

    def _counts(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.to(self._accelerator.device, non_blocking=True)
        with self._accelerator.autocast():
            logits = self._model(self._normalise(images)).float()
        return (
            count_hits(functional.cross_entropy(logits, labels, reduction="sum"), logits, labels)
            .double()
            .cpu()
        )

    def _result(self, sums: torch.Tensor, seconds: float) -> Evaluation:
        loss, top1, top5, counted, skipped = self._comm.sum(sums.clone()).tolist()
        if counted + skipped != len(self._dataset) or not counted:
            raise DataError(
                f"evaluated {counted:.0f} (+ {skipped:.0f} unreadable) of {len(self._dataset)} images"
            )
        return Evaluation(
            loss / counted, top1 / counted, top5 / counted, int(counted), seconds, int(skipped),
            self._waited, tuple(self._taken),
        )  # fmt: skip
