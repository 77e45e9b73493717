"""One optimizer step: micro-batches forward and backward, gradients summed over micro-batches and
ranks, update.

Nothing here waits for the device: losses and hits are added up where they were computed and read at
log intervals.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inception_trainer.comm import Comm
from inception_trainer.config.normalization import Normalization
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Batch
from inception_trainer.data.order import stream_key
from inception_trainer.device import Accelerator

from .losses import Criterion
from .mixup import blended, share_of
from .schedule import BatchPlan
from .updates import OptimizerStep


@dataclass(frozen=True)
class StepStats:
    """Sums over the steps since the last reading, over all ranks."""

    loss: float
    top1: float
    top5: float
    samples: float
    skipped: float
    skipped_steps: int
    data_seconds: float
    compute_seconds: float
    """Seconds are means over the ranks."""
    loss_scale: float | None = None


class Normalise:
    """uint8 images of the host to normalised floats ``[n, 3, side, side]`` on the device, channels
    last.
    """

    def __init__(self, normalization: Normalization, device: torch.device) -> None:
        self._device = device
        deviation = torch.tensor(normalization.std, device=device).view(1, 3, 1, 1)
        self._scale = normalization.range / (255 * deviation)
        self._shift = torch.tensor(normalization.mean, device=device).view(1, 3, 1, 1) / deviation
        self._swaps = normalization.order == "BGR"

    def __call__(self, images: Tensor) -> Tensor:
        """Grey images ``[n, 1, ...]`` are repeated over the three channels."""
        x = images.to(self._device, non_blocking=True).float()
        x = x.flip(1) if self._swaps else x
        return (x * self._scale - self._shift).contiguous(memory_format=torch.channels_last)


def count_hits(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """``[loss, top-1 hits, top-5 hits, counted, skipped]`` on the device; negative labels are
    skipped.
    """
    best = logits.detach().topk(min(5, logits.shape[1]), 1).indices
    hits = best == labels[:, None]
    counted = (labels >= 0).sum()
    kind = torch.float64 if loss.device.type == "cpu" else torch.float32
    parts = (loss.detach(), hits[:, 0].sum(), hits.sum(), counted, len(labels) - counted)
    return torch.stack([part.to(kind) for part in parts])


def parallel(
    model: nn.Module, accelerator: Accelerator, comm: Comm, micro_batches: int
) -> nn.Module:
    """Wrap for several ranks: rank 0's weights everywhere, gradients averaged while backward still
    runs.
    """
    if comm.world_size == 1:
        return model
    return DistributedDataParallel(
        model,
        device_ids=accelerator.device_ids,
        **_own_statistics(),
        gradient_as_bucket_view=True,
        static_graph=micro_batches == 1,
    )


def _own_statistics() -> dict[str, Any]:
    # torch 2.15 renamed the argument; both names leave the batch norm statistics of each rank alone
    # while it trains.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
    }


class TrainStep:
    """Owns the forward and backward passes of training."""

    def __init__(
        self,
        model: nn.Module,
        updater: OptimizerStep,
        accelerator: Accelerator,
        normalise: Normalise,
        plan: BatchPlan,
        config: TrainingConfig,
        comm: Comm,
    ) -> None:
        self._model, self._updater, self._accelerator, self._comm = (
            model,
            updater,
            accelerator,
            comm,
        )
        self._normalise, self._plan, self._seed = normalise, plan, config.seed
        self._criterion = Criterion(
            config.loss.label_smoothing, config.loss.auxiliary_weight or 0.0
        )
        self._mixup = config.augmentation.mixup
        self._draws = any(
            isinstance(module, nn.modules.dropout._DropoutNd) for module in model.modules()
        )  # noqa: SLF001
        self._clear()

    def step(self, batches: Iterator[Batch], step: int, rate: float) -> tuple[float, float]:
        """Do optimizer step number ``step``; returns the seconds spent waiting for data and
        computing.
        """
        began = time.perf_counter()
        if self._draws:
            # Dropout too is a function of counters, so that a resumed run draws the same.
            torch.manual_seed(int(stream_key(self._seed, step, self._comm.rank, 4)) >> 1)
        share = None if self._mixup is None else share_of(self._seed, step, self._mixup)
        waited = 0.0
        for micro in range(self._plan.micro_batches):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            with self._synchronised(micro == self._plan.micro_batches - 1):
                self._micro_step(batch, share)
        self._updater.apply(rate, step + 1)
        computed = time.perf_counter() - began - waited
        self._waited += waited
        self._computed += computed
        return waited, computed

    def read(self) -> StepStats:
        """Sums of all ranks since the last call; waits for the device. Every rank must call it."""
        local = torch.cat(
            (self._sums.double().cpu(), torch.tensor([self._waited, self._computed]).double())
        )
        loss, top1, top5, samples, skipped, waited, computed = self._comm.sum(local).tolist()
        self._clear()
        ranks = self._comm.world_size
        return StepStats(
            loss, top1, top5, samples, skipped, self._updater.read_skipped(), waited / ranks, computed / ranks,
            self._updater.read_loss_scale(),
        )  # fmt: skip

    def _micro_step(self, batch: Batch, share: float | None) -> None:
        labels = batch.labels.to(self._accelerator.device, non_blocking=True)
        images = self._normalise(batch.images)
        with self._accelerator.autocast():
            outputs = self._model(images if share is None else blended(images, share))
        loss = (
            self._criterion(outputs, labels)
            if share is None
            else self._criterion.mixed(outputs, labels, share)
        )
        # Ranks are averaged by their wrapper: summed losses over the global batch give the mean of
        # all its samples.
        self._updater.backward(loss.total * (self._comm.world_size / self._plan.global_batch))
        self._sums += count_hits(loss.main, loss.logits, labels)

    def _synchronised(self, wanted: bool) -> AbstractContextManager[object]:
        if wanted or not isinstance(self._model, DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[object] = self._model.no_sync()
        return context

    def _clear(self) -> None:
        kind = torch.float64 if self._accelerator.is_cpu else torch.float32
        self._sums = torch.zeros(5, dtype=kind, device=self._accelerator.device)
        self._waited = self._computed = 0.0
