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
from dataclasses import dataclass
from typing import Any

from torch import nn

from inception_trainer import models
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Batch, Splits, open_splits
from inception_trainer.data.sampler import BatchPlan, batch_plan, micro_batches_of_epoch
from inception_trainer.errors import ConfigError
from inception_trainer.log import logger
from inception_trainer.reporting.records import RunInfo
from inception_trainer.train.device_augment import defer_to_device
from inception_trainer.train.network import (
    build_network,
    check_batch_norms,
    count_classes,
    prepare_for_training,
)
from inception_trainer.train.prefetch import stream_batches
from inception_trainer.train.profiler import Trace
from inception_trainer.train.results import log_record, pod_devices
from inception_trainer.train.step import Normalise, OptimizerStep, StepStats, TrainStep

from .common import MANY_CLASSES, Boundary, Run
from .largest import with_largest_batch

WINDOWS = 5
"""The measured steps are cut into so many parts: their spread shows how steady the speed is."""


@dataclass(frozen=True)
class Window:
    """One part of the measured steps."""

    steps: int
    seconds: float
    stats: StepStats


def run(run: Run) -> dict[str, Any]:
    """Train without keeping anything; the speeds are those of all ranks together."""
    model = models.canonical(run.config.model.name)
    models.check_image_size(model, run.config.data.image_size)
    if run.config.benchmark.batch == "Largest":
        network = _network(run, run.config.data.num_classes or MANY_CLASSES)
        run.config = with_largest_batch(run, network)
    config, comm = run.config, run.comm
    plan = batch_plan(config.batch, comm.world_size)
    splits = open_splits(config)
    _check_samples(splits, plan)
    defer_to_device(splits.train, config, run.accelerator.device)
    network = _network(run, count_classes(config, splits))
    check_batch_norms(network, config, comm.world_size, plan.smallest_micro_batch)
    recorded_steps = config.profiler.steps or 0
    total_steps = _unrecorded_steps(config) + recorded_steps
    info = run.begin(network, model, total_steps, plan.global_batch)
    logger.info(
        "%s, %s, batch %d on %d x %s: %d steps to warm up, %d measured",
        model,
        info.precision,
        plan.global_batch,
        comm.world_size,
        run.accelerator.name,
        config.benchmark.warmup_steps,
        config.benchmark.steps,
    )
    bench = _Bench(run, info, _train_step(run, network, splits, plan), plan)
    with bench.trace, closing(_batches(run, splits, plan)) as batches:
        bench.do_steps(batches, config.benchmark.warmup_steps)
        lengths = _window_lengths(config.benchmark.steps)
        windows = [bench.measure(batches, length) for length in lengths]
        # Before the recorded steps, so that the peak of memory is not that of the profiler.
        figures = _figures(run, plan, windows)
        bench.do_steps(batches, recorded_steps)
    splits.close()
    bench.boundary.settle()
    return run.summary(info, **figures)


def _unrecorded_steps(config: TrainingConfig) -> int:
    return config.benchmark.warmup_steps + config.benchmark.steps


def _check_samples(splits: Splits, plan: BatchPlan) -> None:
    if len(splits.train) < plan.global_batch:
        raise ConfigError(
            f"batch.global: {plan.global_batch} is more than the {len(splits.train)} "
            "training samples"
        )


class _Bench:
    """Counts steps and reads the clock only where the device has caught up."""

    def __init__(self, run: Run, info: RunInfo, train_step: TrainStep, plan: BatchPlan) -> None:
        self._run = run
        self._info = info
        self._train_step = train_step
        self._plan = plan
        self.boundary = Boundary(run)
        self._step = 0
        # Recording makes steps slower, so they come after those that are measured.
        profiler = dataclasses.replace(
            run.config.profiler, after_steps=_unrecorded_steps(run.config)
        )
        self.trace = Trace(
            profiler, run.accelerator, run.comm, run.heartbeat, info.output, info.attempt
        )

    def do_steps(self, batches: Iterator[Batch], count: int) -> StepStats:
        """Do ``count`` steps and wait for the device; returns their sums."""
        rate = self._run.config.optimizer.learning_rate
        for _ in range(count):
            self.boundary.check()
            with self.trace.step(self._step + 1):
                began = time.perf_counter()
                self._train_step.step(batches, self._step, rate)
                seconds = time.perf_counter() - began
            self._step += 1
            self._run.step(self._step, self._plan.global_batch, "train", seconds)
            self._tell_times()
        stats = self._train_step.read()
        self._tell_times()
        return stats

    def _tell_times(self) -> None:
        for times in self._train_step.take_times():
            self._run.bus.step_times(times)

    def measure(self, batches: Iterator[Batch], count: int) -> Window:
        """Do ``count`` steps, take their time and log it."""
        began = time.monotonic()
        stats = self.do_steps(batches, count)
        window = Window(count, time.monotonic() - began, stats)
        self._log(window)
        return window

    def _log(self, window: Window) -> None:
        run = self._run
        record = log_record(
            window.stats,
            self._info,
            step=self._step,
            learning_rate=run.config.optimizer.learning_rate,
            images_per_second=window.steps * self._plan.global_batch / window.seconds,
            step_seconds=window.seconds / window.steps,
            samples_seen=run.samples_seen,
            devices=pod_devices(run, run.comm),
        )
        # A benchmark has no epochs.
        run.bus.log(dataclasses.replace(record, epoch=0.0))


def _network(run: Run, classes: int) -> nn.Module:
    network, _ = build_network(run.config, classes, run.comm, run.accelerator.device)
    return network


def _train_step(run: Run, network: nn.Module, splits: Splits, plan: BatchPlan) -> TrainStep:
    config = run.config
    optimizer_step = OptimizerStep(config, network, run.accelerator)
    trained = prepare_for_training(
        network, config.execution, run.accelerator, run.comm, plan.micro_batches
    )
    normalise = Normalise(
        splits.normalization, run.accelerator.device, run.accelerator.compute_type
    )
    return TrainStep(trained, optimizer_step, run.accelerator, normalise, plan, config, run.comm)


def _batches(run: Run, splits: Splits, plan: BatchPlan) -> Generator[Batch]:
    """Micro-batches without end."""
    steps_per_epoch = len(splits.train) // plan.global_batch
    fixed = run.config.data.kind == "Synthetic"
    for epoch in itertools.count():
        last = 1 if fixed else steps_per_epoch
        numbers = micro_batches_of_epoch(
            plan, run.comm.rank, len(splits.train), run.config.seed, epoch, 0, last
        )
        with stream_batches(splits.train, numbers, epoch, run.accelerator.device) as stream:
            if fixed:
                # Making images would take the CPU's time from the training that is measured.
                yield from itertools.cycle(list(stream))
            yield from stream


def _window_lengths(steps: int) -> list[int]:
    """``steps`` in at most five parts, whose sizes differ by at most one."""
    count = min(WINDOWS, steps)
    return [steps * (i + 1) // count - steps * i // count for i in range(count)]


def _figures(run: Run, plan: BatchPlan, windows: list[Window]) -> dict[str, Any]:
    lengths = [window.steps for window in windows]
    speeds = [window.steps * plan.global_batch / window.seconds for window in windows]
    step, step_variance = spread(lengths, [window.seconds for window in windows])
    compute, compute_variance = spread(
        lengths, [window.seconds - window.stats.data_seconds for window in windows]
    )
    speed = plan.global_batch / step
    waited = sum(window.stats.data_seconds for window in windows)
    computed = sum(window.stats.compute_seconds for window in windows)
    last = windows[-1].stats
    return {
        "dataKind": run.config.data.kind,
        "imageSize": run.config.data.image_size,
        "globalBatch": plan.global_batch,
        "batchPerDevice": plan.largest_micro_batch,
        "microBatches": plan.micro_batches,
        "warmupSteps": run.config.benchmark.warmup_steps,
        "measuredSteps": sum(lengths),
        "imagesPerSecond": round(speed, 3),
        "imagesPerSecondPerDevice": round(speed / run.comm.world_size, 3),
        "imagesPerSecondMedian": round(statistics.median(speeds), 3),
        "imagesPerSecondWindows": [round(value, 3) for value in speeds],
        "stepSeconds": step,
        "stepSecondsVariance": step_variance,
        "computeSeconds": compute,
        "computeSecondsVariance": compute_variance,
        "dataWaitRatio": waited / max(1e-9, waited + computed),
        "deviceIdleRatio": _idle_ratio(windows),
        "peakMemoryBytes": run.accelerator.peak_memory_bytes(),
        "loss": last.loss / max(1.0, last.samples),
    }


def _idle_ratio(windows: list[Window]) -> float | None:
    """Share of the measured time in which the devices had nothing to do; None where they do not
    say when they compute.
    """
    gaps = [window.stats.gap_seconds for window in windows]
    known = [gap for gap in gaps if gap is not None]
    if len(known) < len(gaps):
        return None
    idle = sum(known) + sum(window.stats.data_seconds for window in windows)
    return idle / max(1e-9, idle + sum(window.stats.compute_seconds for window in windows))


def spread(lengths: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Mean and variance of the seconds of a step over windows of ``lengths`` steps that took
    ``seconds``.

    Each window counts as often as it has steps. Nothing waits for the device within a window, so
    single steps have no times; their variance would be no smaller than this one.
    """
    steps = sum(lengths)
    mean = sum(seconds) / steps
    pairs = zip(lengths, seconds, strict=True)
    return mean, sum(length * (taken / length - mean) ** 2 for length, taken in pairs) / steps
