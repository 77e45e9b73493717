"""Mode Benchmark: the speed of whole training steps, warm-up excluded.

Synthetic data is made once and used again and again, so that the network is measured and nothing
else; any other kind comes through its loader, and the share of time spent waiting for it is
reported beside the speed. Steps that ``profiler`` records come after the measured ones.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import nn

from inception_trainer import models
from inception_trainer.config.training import ModelConfig
from inception_trainer.data import Batch, Splits, open_splits, streamed
from inception_trainer.device import of_ranks
from inception_trainer.errors import ConfigError
from inception_trainer.log import logger
from inception_trainer.reporting.records import LogRecord, RunInfo
from inception_trainer.train.compiling import executed
from inception_trainer.train.profiler import Trace
from inception_trainer.train.schedule import BatchPlan, batch_plan, micro_batches_of_epoch
from inception_trainer.train.state import share
from inception_trainer.train.step import Normalise, StepStats, TrainStep, parallel
from inception_trainer.train.syncnorm import synchronize
from inception_trainer.train.updates import OptimizerStep
from inception_trainer.weights.load import load_weights, local_file

from .common import Boundary, Run
from .largest import with_largest_batch

MANY_CLASSES = 1000
"""Of the network for which the largest batch is sought where the configuration does not name a
number.
"""
WINDOWS = 5
"""The measured steps are cut into so many parts: their spread shows how steady the speed is."""


def run(run: Run) -> dict[str, Any]:
    """Train without keeping anything; the speeds are those of all ranks together."""
    model = models.canonical(run.config.model.name)
    models.check_image_size(model, run.config.data.image_size)
    if run.config.benchmark.batch == "Largest":
        run.config = with_largest_batch(
            run, _network(run, model, run.config.data.num_classes or MANY_CLASSES)
        )
    config, comm = run.config, run.comm
    plan = batch_plan(config.batch, comm.world_size)
    splits = open_splits(config)
    if len(splits.train) < plan.global_batch:
        raise ConfigError(
            f"batch.global: {plan.global_batch} is more than the {len(splits.train)} training samples"
        )
    network = _network(run, model, max(splits.num_classes, config.data.num_classes or 0))
    lengths = _window_lengths(config.benchmark.steps)
    recorded = config.profiler.steps or 0
    measured = config.benchmark.warmup_steps + config.benchmark.steps
    info = run.begin(network, model, measured + recorded, plan.global_batch)
    logger.info(
        "%s, %s, batch %d on %d x %s: %d steps to warm up, %d measured",
        model, info.precision, plan.global_batch, comm.world_size, run.accelerator.name,
        config.benchmark.warmup_steps, config.benchmark.steps,
    )  # fmt: skip
    bench = _Bench(run, info, _stepper(run, network, splits, plan), plan)
    with bench.trace, closing(_batches(run, splits, plan)) as batches:
        bench.steps(batches, config.benchmark.warmup_steps)
        windows = [bench.measured(batches, length) for length in lengths]
        figures = _figures(run, plan, lengths, windows)
        bench.steps(batches, recorded)
    splits.close()
    bench.boundary.settle()
    return run.summary(info, **figures)


class _Bench:
    """Counts steps and reads the clock only where the device has caught up."""

    def __init__(self, run: Run, info: RunInfo, stepper: TrainStep, plan: BatchPlan) -> None:
        self._run, self._stepper, self._plan = run, stepper, plan
        self.boundary = Boundary(run)
        self._step = 0
        # Recording makes steps slower, so they come after those that are measured.
        bench = run.config.benchmark
        profiler = dataclasses.replace(
            run.config.profiler, after_steps=bench.warmup_steps + bench.steps
        )
        self.trace = Trace(
            profiler, run.accelerator, run.comm, run.heartbeat, info.output, info.attempt
        )

    def steps(self, batches: Iterator[Batch], count: int) -> StepStats:
        """Do ``count`` steps and wait for the device."""
        rate = self._run.config.optimizer.learning_rate
        for _ in range(count):
            self.boundary.check()
            with self.trace.step(self._step + 1):
                waited, computed = self._stepper.step(batches, self._step, rate)
            self._step += 1
            self._run.step(self._step, self._plan.global_batch, "train", waited, computed)
        return self._stepper.read()

    def measured(self, batches: Iterator[Batch], count: int) -> tuple[float, StepStats]:
        """Seconds and sums of ``count`` steps."""
        began = time.monotonic()
        window = self.steps(batches, count)
        seconds = time.monotonic() - began
        self._log(window, seconds, count)
        return seconds, window

    def _log(self, window: StepStats, seconds: float, count: int) -> None:
        run, counted = self._run, max(1.0, window.samples)
        assert run.info is not None  # noqa: S101 - begun before anything is measured
        speed, left = count * self._plan.global_batch / seconds, run.info.total_steps - self._step
        first = run.comm.rank - run.settings.local_rank
        run.bus.log(
            LogRecord(
                step=self._step,
                epoch=0.0,
                loss=window.loss / counted,
                accuracy_top1=window.top1 / counted,
                accuracy_top5=window.top5 / counted,
                learning_rate=run.config.optimizer.learning_rate,
                images_per_second=speed,
                step_seconds=seconds / count,
                data_wait_ratio=window.data_seconds
                / max(1e-9, window.data_seconds + window.compute_seconds),
                progress=self._step / run.info.total_steps,
                remaining_seconds=left * seconds / count,
                samples_seen=run.samples_seen,
                skipped_samples=int(window.skipped),
                devices=of_ranks(run.accelerator, run.comm)[
                    first : first + run.settings.local_world_size
                ],
            )
        )


def _network(run: Run, model: str, classes: int) -> nn.Module:
    torch.manual_seed(run.config.seed)
    auxiliary, dropout = bool(run.config.loss.auxiliary_weight), run.config.model.dropout
    network = models.create(model, classes, auxiliary=auxiliary, dropout=dropout)
    run.comm.from_first(lambda: _load(network, model, run.config.model))
    if run.config.model.batch_norm == "Synchronized" and run.comm.world_size > 1:
        synchronize(network)
    network.to(run.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    share([*network.parameters(), *network.buffers()], run.comm)
    return network


def _load(network: nn.Module, model: str, config: ModelConfig) -> None:
    if config.weights is not None:
        load_weights(
            network, model, local_file(config.weights), new_classifier=config.classifier == "New"
        )


def _stepper(run: Run, network: nn.Module, splits: Splits, plan: BatchPlan) -> TrainStep:
    config, device = run.config, run.accelerator.device
    updater = OptimizerStep(config, network, run.accelerator)
    wrapped = parallel(
        executed(network, config.execution, device), run.accelerator, run.comm, plan.micro_batches
    )
    normalise = Normalise(splits.normalization, device)
    return TrainStep(wrapped, updater, run.accelerator, normalise, plan, config, run.comm)


def _batches(run: Run, splits: Splits, plan: BatchPlan) -> Generator[Batch]:
    """Micro-batches without end."""
    per_epoch = len(splits.train) // plan.global_batch
    fixed = run.config.data.kind == "Synthetic"
    for epoch in itertools.count():
        last = 1 if fixed else per_epoch
        numbers = micro_batches_of_epoch(
            plan, run.comm.rank, len(splits.train), run.config.seed, epoch, 0, last
        )
        with streamed(splits.train, numbers, epoch, run.accelerator.device) as stream:
            if fixed:
                yield from itertools.cycle(list(stream))
            yield from stream


def _window_lengths(steps: int) -> list[int]:
    count = min(WINDOWS, steps)
    return [steps * (i + 1) // count - steps * i // count for i in range(count)]


def _figures(
    run: Run, plan: BatchPlan, lengths: list[int], windows: list[tuple[float, StepStats]]
) -> dict[str, Any]:
    batch, ranks = plan.global_batch, run.comm.world_size
    speeds = [length * batch / taken for length, (taken, _) in zip(lengths, windows, strict=True)]
    waited, computed = (
        sum(getattr(w, name) for _, w in windows) for name in ("data_seconds", "compute_seconds")
    )
    step, step_variance = spread(lengths, [taken for taken, _ in windows])
    compute, compute_variance = spread(
        lengths, [taken - window.data_seconds for taken, window in windows]
    )
    speed = batch / step
    return {
        "dataKind": run.config.data.kind,
        "imageSize": run.config.data.image_size,
        "globalBatch": batch,
        "batchPerDevice": max(part.stop - part.start for part in plan.micro_slices(ranks - 1)),
        "microBatches": plan.micro_batches,
        "warmupSteps": run.config.benchmark.warmup_steps,
        "measuredSteps": sum(lengths),
        "imagesPerSecond": round(speed, 3),
        "imagesPerSecondPerDevice": round(speed / ranks, 3),
        "imagesPerSecondMedian": round(statistics.median(speeds), 3),
        "imagesPerSecondWindows": [round(value, 3) for value in speeds],
        "stepSeconds": step,
        "stepSecondsVariance": step_variance,
        "computeSeconds": compute,
        "computeSecondsVariance": compute_variance,
        "dataWaitRatio": waited / max(1e-9, waited + computed),
        "peakMemoryBytes": run.accelerator.peak_memory_bytes(),
        "loss": windows[-1][1].loss / max(1.0, windows[-1][1].samples),
    }


def spread(lengths: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Mean and variance of the seconds of a step over windows of ``lengths`` steps that took
    ``seconds``.

    Each window counts as often as it has steps. Nothing waits for the device within a window, so
    single steps have no times; their variance would be no smaller than this one.
    """
    steps = sum(lengths)
    mean = sum(seconds) / steps
    return mean, sum(
        n * (taken / n - mean) ** 2 for n, taken in zip(lengths, seconds, strict=True)
    ) / steps
