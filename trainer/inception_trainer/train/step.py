"""One optimizer step: from uint8 images to changed weights.

:class:`TrainStep` runs the micro-batches of a rank forward and backward; gradients add up over
micro-batches, and over ranks by DistributedDataParallel. :class:`OptimizerStep` then unscales,
clips, steps the optimizer and the running average.

Nothing here waits for the device (but for FP16 without SGD): losses and hits are added up where
they were computed and read at log intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
from inception_trainer.data.augment import finish
from inception_trainer.data.counter_rng import stream_key
from inception_trainer.data.sampler import BatchPlan
from inception_trainer.device import Accelerator, StepTimes, image_format

from .ema import WeightAverage
from .losses import Criterion
from .mixup import Mix, draw_mix, mix_images
from .norm_counters import NormCounters
from .optimizers import make_optimizer
from .prefetch import on_device

DROPOUT_STREAM = 4
"""Counter of :func:`stream_key` for the masks of dropout."""


@dataclass(frozen=True)
class StepStats:
    """Sums over the steps since the last reading, over all ranks."""

    loss: float
    top1: float
    top5: float
    samples: float
    """Images that could be read."""
    skipped: float
    """Images that could not."""
    skipped_steps: int
    """Steps whose FP16 gradients overflowed."""
    data_seconds: float
    """In which nothing was computed because a batch was missing, mean over the ranks."""
    compute_seconds: float
    """The rest of the steps, mean over the ranks."""
    gap_seconds: float | None = None
    """Between the steps, in which the device had nothing to do, mean over the ranks; None where the
    device does not say when it computes.
    """
    loss_scale: float | None = None
    """What FP16 losses are multiplied by now."""
    gradient_norm: float | None = None
    """Of the last step, before it is limited; None where nothing asks for it."""

    @property
    def data_wait_ratio(self) -> float:
        """Share of the time that was spent waiting for batches, 0 to 1."""
        return self.data_seconds / max(1e-9, self.data_seconds + self.compute_seconds)

    @property
    def device_idle_ratio(self) -> float | None:
        """Share of the time in which the device had nothing to do, for want of a batch or between
        two steps, 0 to 1; None where it does not say when it computes.
        """
        if self.gap_seconds is None:
            return None
        idle = self.data_seconds + self.gap_seconds
        return idle / max(1e-9, idle + self.compute_seconds)


class Normalise:
    """uint8 images ``[n, 1 or 3, side, side]`` of the host to normalised floats ``[n, 3, side,
    side]`` on the device, channels last: of type ``kind`` where the device can do all of it in one
    pass, else float32.
    """

    def __init__(
        self,
        normalization: Normalization,
        device: torch.device,
        kind: torch.dtype = torch.float32,
    ) -> None:
        self._device = device
        self._kind = kind
        mean = torch.tensor(normalization.mean, device=device).view(1, 3, 1, 1)
        deviation = torch.tensor(normalization.std, device=device).view(1, 3, 1, 1)
        # (x / 255 * range - mean) / std as one multiplication and one subtraction.
        self._scale = normalization.range / (255 * deviation)
        self._shift = mean / deviation
        self._offset = -self._shift
        self._swaps = normalization.order == "BGR"
        self._format = image_format(device)
        # The CPU would convert first all the same, into memory of its own.
        self._in_one_pass = device.type != "cpu" and self._works_in_one_pass()

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise a batch; grey images are repeated over the three channels."""
        # As bytes, because that is a quarter of what the floats would take on the way.
        x = images.to(self._device, non_blocking=True)
        x = x.flip(1) if self._swaps else x
        if self._in_one_pass:
            return self._one_pass(x)
        x = x.float()
        return (x * self._scale - self._shift).contiguous(memory_format=self._format)

    def _one_pass(self, x: Tensor) -> Tensor:
        """Conversion, scale, shift, rounding and layout in one kernel, which computes in float32:
        every pass over the images costs as much as reading and writing them.
        """
        shape = (len(x), 3, *x.shape[2:])
        normalised = torch.empty(
            shape, dtype=self._kind, device=x.device, memory_format=self._format
        )
        return torch.addcmul(self._offset, x, self._scale, out=normalised)

    def _works_in_one_pass(self) -> bool:
        """Whether the device mixes types in one operation as torch's own do; tried, for nothing
        tells.
        """
        try:
            self._one_pass(torch.zeros(1, 1, 2, 2, dtype=torch.uint8, device=self._device))
        except Exception:
            # Vendors raise what they like.
            return False
        return True


def count_hits(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """``[loss, top-1 hits, top-5 hits, counted, skipped]`` on the device.

    ``logits`` ``[n, classes]``, ``labels`` int64 ``[n]``, of which negative ones are skipped.
    """
    best = logits.detach().topk(min(5, logits.shape[1]), 1).indices
    # Many accelerators have no float64, and add up int64, which is the sum of bools, slowly or not
    # at all; a log interval is short enough for float32.
    kind = torch.float64 if loss.device.type == "cpu" else torch.float32
    hits = (best == labels[:, None]).to(kind)
    counted = (labels >= 0).to(kind).sum()
    parts = (loss.detach().to(kind), hits[:, 0].sum(), hits.sum(), counted, len(labels) - counted)
    return torch.stack(parts)


class OptimizerStep:
    """Everything that changes weights: loss scale, clipping, optimizer, running average."""

    def __init__(self, config: TrainingConfig, model: nn.Module, accelerator: Accelerator) -> None:
        self.name = config.optimizer.name
        self.optimizer = make_optimizer(config.optimizer, model, accelerator.device)
        self.average: WeightAverage | None = None
        if config.weight_average.decay is not None:
            self.average = WeightAverage(model, config.weight_average)
        self._fixed_scale = config.loss.scale
        self.scaler = accelerator.loss_scaler(self._fixed_scale)
        self._accelerator = accelerator
        self._parameters = [value for value in model.parameters() if value.requires_grad]
        self._clip_norm = config.optimizer.clip_norm
        self._skipped = torch.zeros((), device=accelerator.device)
        self._norm: Tensor | None = None
        """Of the gradients of the last step, where it was computed anyway."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` to ``.grad``."""
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))

    def apply(self, rate: float, steps: int) -> None:
        """Change the weights and clear the gradients; the job has then done ``steps`` steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        if self.scaler is None:
            if self._clip_norm is not None:
                self._norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
            self.optimizer.step()
        else:
            self._apply_scaled(self.scaler)
        # None instead of zeros: the first backward pass writes instead of adding.
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(steps)
        self._accelerator.end_of_step()

    def _apply_scaled(self, scaler: Any) -> None:
        scaler.unscale_(self.optimizer)
        # Without a limit the norm is still computed: it says whether a gradient overflowed, which
        # the scaler itself tells only by a copy from the device.
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm or math.inf)
        self._norm = norm
        self._skipped += ~torch.isfinite(norm)
        scaler.step(self.optimizer)
        if self._fixed_scale is None:
            scaler.update()
        else:
            # Set again after each step, or an overflow would halve it.
            scaler.update(self._fixed_scale)

    def read_loss_scale(self) -> float | None:
        """What FP16 losses are multiplied by; waits for the device."""
        return None if self.scaler is None else float(self.scaler.get_scale())

    def read_gradient_norm(self) -> float | None:
        """L2 norm of the gradients of the last step, before it was limited; None where nothing
        (a limit, FP16) has asked for it. Waits for the device.
        """
        return None if self._norm is None else float(self._norm)

    def read_skipped(self) -> int:
        """Steps since the last call whose FP16 gradients overflowed and changed nothing; waits for
        the device.
        """
        skipped = int(self._skipped.item())
        self._skipped.zero_()
        return skipped


class TrainStep:
    """The forward and backward passes of training, and their figures."""

    def __init__(
        self,
        model: nn.Module,
        optimizer_step: OptimizerStep,
        accelerator: Accelerator,
        normalise: Normalise,
        plan: BatchPlan,
        config: TrainingConfig,
        comm: Comm,
        before_update: Callable[[], None] = lambda: None,
        mixed_steps: float = math.inf,
    ) -> None:
        """``before_update`` is called when all that is left of a step is to change the weights;
        only the first ``mixed_steps`` steps mix images.
        """
        self._model = model
        self._optimizer_step = optimizer_step
        self._before_update = before_update
        self._accelerator = accelerator
        self._normalise = normalise
        self._plan = plan
        self._seed = config.seed
        self._comm = comm
        self._criterion = Criterion.of(config.loss, accelerator.device)
        self._augmentation = config.augmentation
        self._mixed_steps = mixed_steps
        self._has_dropout = any(
            isinstance(module, nn.modules.dropout._DropoutNd)  # noqa: SLF001
            for module in model.modules()
        )
        # With synchronized norms the ranks wait for one another in every layer.
        self._meets_early = comm.world_size > 1 and config.model.batch_norm == "Synchronized"
        self._norm_counters = NormCounters(model)
        self._clock = accelerator.step_clock()
        self._untold: list[StepTimes] = []
        self._clear()

    def step(self, batches: Iterator[Batch], step: int, rate: float) -> None:
        """Do optimizer step number ``step``, counted from 0, with the learning rate ``rate``; the
        device may do it later.
        """
        clock = self._clock
        clock.begin(step + 1)
        if self._has_dropout:
            # Dropout too is a function of counters, so that a resumed run draws the same.
            key = stream_key(self._seed, step, self._comm.rank, DROPOUT_STREAM)
            self._accelerator.seed(int(key) >> 1)
        mix = None
        if step < self._mixed_steps:
            mix = draw_mix(self._augmentation, self._seed, step)
        last = self._plan.micro_batches - 1
        for micro_batch in range(self._plan.micro_batches):
            clock.ask()
            batch = next(batches)
            clock.receive()
            with self._gradient_sync(micro_batch == last):
                self._forward_backward(batch, mix, last=micro_batch == last)
        self._clock.meet()
        self._before_update()
        self._optimizer_step.apply(rate, step + 1)
        clock.end()

    def take_times(self) -> list[StepTimes]:
        """The times of steps that have become known since the last call; waits for nothing."""
        self._note(self._clock.take())
        times, self._untold = self._untold, []
        return times

    def finish_times(self) -> list[StepTimes]:
        """The same once the device has done all steps, which it waits for."""
        self._sums.cpu()
        self._note(self._clock.take(caught_up=True))
        return self.take_times()

    def read(self) -> StepStats:
        """Sums of all ranks since the last call; waits for the device. Every rank must call it."""
        # On the host before it is widened: many devices have no float64. This waits for the device.
        sums = self._sums.cpu().double()
        self._note(self._clock.take(caught_up=True))
        local = torch.cat((sums, torch.tensor(self._seconds, dtype=torch.float64)))
        loss, top1, top5, samples, skipped, *seconds = self._comm.sum(local).tolist()
        waited, computed, gap = (value / self._comm.world_size for value in seconds)
        self._clear()
        return StepStats(
            loss=loss,
            top1=top1,
            top5=top5,
            samples=samples,
            skipped=skipped,
            skipped_steps=self._optimizer_step.read_skipped(),
            data_seconds=waited,
            compute_seconds=computed,
            gap_seconds=gap if self._clock.sees_device else None,
            loss_scale=self._optimizer_step.read_loss_scale(),
            gradient_norm=self._optimizer_step.read_gradient_norm(),
        )

    def _forward_backward(self, batch: Batch, mix: Mix | None, *, last: bool) -> None:
        """One micro-batch; ``mix`` says how its images are mixed."""
        batch = on_device(batch, self._accelerator.device)
        labels = batch.labels
        images = self._normalise(finish(batch.images, batch.pending))
        lam = None
        if mix is not None:
            images, lam = mix_images(images, mix)
        with self._accelerator.autocast(), self._norm_counters:
            outputs = self._model(images)
        # Outside autocast: losses are computed in FP32 whatever the network's precision.
        if lam is None:
            loss = self._criterion(outputs, labels)
        else:
            loss = self._criterion.mixed(outputs, labels, lam)
        # Ranks are averaged by their wrapper: summed losses over the global batch give the mean of
        # all its samples, also where the ranks' slices differ in size.
        scale = self._comm.world_size / self._plan.global_batch
        total = loss.total * scale
        if last and not self._meets_early:
            self._time_gradients(total)
        self._optimizer_step.backward(total)
        self._sums += count_hits(loss.main, loss.logits, labels)

    def _time_gradients(self, loss: Tensor) -> None:
        """Have the clock told when the backward pass of ``loss`` has computed all gradients, and
        before this rank waits for those of the others.
        """
        # The engine calls back when backward is through, in the order in which it was asked: this
        # comes before DistributedDataParallel's wait, which is asked for with the last gradients.
        engine = torch.autograd.Variable._execution_engine  # noqa: SLF001 - torch's own FSDP does
        loss.register_hook(  # type: ignore[no-untyped-call]
            lambda _: engine.queue_callback(self._clock.ready)
        )

    def _gradient_sync(self, last: bool) -> AbstractContextManager[object]:
        """Ranks exchange gradients once per step, in the backward pass of the last micro-batch."""
        if last or not isinstance(self._model, DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[object] = self._model.no_sync()
        return context

    def _clear(self) -> None:
        kind = torch.float64 if self._accelerator.is_cpu else torch.float32
        self._sums = torch.zeros(5, dtype=kind, device=self._accelerator.device)
        self._seconds = [0.0, 0.0, 0.0]
        """Waiting for batches, computing, standing still between steps."""

    def _note(self, times: list[StepTimes]) -> None:
        for step in times:
            self._seconds[0] += step.data_seconds
            self._seconds[1] += step.compute_seconds
            self._seconds[2] += step.gap_seconds
        self._untold += times
