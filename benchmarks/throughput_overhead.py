"""Of benchmarks/throughput.py: what share of a real training is spent outside forward, backward and
update.

Real means: synthetic images that are made in the loop, logging every 10 steps, all sinks, a
checkpoint every 20 seconds. From the fourth step to the last: what a run does once, at its start
and its end, is not counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig, from_mapping
from inception_trainer.device import StepTimes
from inception_trainer.train import build, evaluation, losses
from inception_trainer.train import network as networks
from inception_trainer.train import step as steps

WARMUP = 3
SHAPES = {
    "bninception": (224, 4),
    "inception_v3": (299, 4),
    "inception_v4": (299, 4),
    "resnet50": (224, 4),
    "inceptionv3_cifar": (32, 4),
}


class Clock:
    """Seconds inside a set of functions, and of the whole from the first counted step on."""

    def __init__(self) -> None:
        self.inside = self.waiting = 0.0
        self.evaluates = False
        self.began = self.ended = 0.0
        self.count = 0

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                if self.count > WARMUP and not self.evaluates:
                    self.inside += time.perf_counter() - began

        return timed

    def left_out(self, evaluate: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            self.evaluates = True
            try:
                return evaluate(*arguments, **options)
            finally:
                self.evaluates = False

        return timed

    def step(self, function: Callable[..., None]) -> Callable[..., None]:
        def timed(*arguments: Any, **options: Any) -> None:
            self.count += 1
            if self.count == WARMUP + 1:
                self.began = time.perf_counter()
            function(*arguments, **options)
            self.ended = time.perf_counter()

        return timed

    def times(self, function: Callable[..., list[StepTimes]]) -> Callable[..., list[StepTimes]]:
        def added(*arguments: Any, **options: Any) -> list[StepTimes]:
            steps = function(*arguments, **options)
            if self.count > WARMUP:
                self.waiting += sum(times.data_seconds for times in steps)
            return steps

        return added


def configuration(network: str, precision: str, count: int, folder: str) -> TrainingConfig:
    side, batch = SHAPES[network]
    return from_mapping(
        {
            "model": {"name": network},
            "loss": {"auxiliaryWeight": 0},
            "data": {
                "kind": "Synthetic",
                "imageSize": side,
                "numClasses": 10,
                "samples": 16 * batch,
            },
            "batch": {"global": batch},
            "maxSteps": count,
            "optimizer": {"learningRate": 0.005},
            "precision": precision,
            "evaluation": {"everyEpochs": 1000},
            "checkpoint": {"path": folder, "everySeconds": 20},
        }
    )


def share_outside(name: str, precision: str, count: int) -> tuple[float, float, float]:
    """Shares of the time: outside the model, of it waiting for data; and seconds per step."""
    clock = Clock()
    originals = (
        steps.TrainStep.step,
        steps.OptimizerStep.backward,
        steps.OptimizerStep.apply,
        losses.Criterion.__call__,
        steps.TrainStep.take_times,
    )
    wrap, evaluate = networks.wrap_for_ranks, evaluation.Evaluator.run
    steps.TrainStep.step = clock.step(originals[0])  # type: ignore[method-assign]
    steps.OptimizerStep.backward = clock.counted(originals[1])  # type: ignore[method-assign]
    steps.OptimizerStep.apply = clock.counted(originals[2])  # type: ignore[method-assign]
    losses.Criterion.__call__ = clock.counted(originals[3])  # type: ignore[method-assign]
    steps.TrainStep.take_times = clock.times(originals[4])  # type: ignore[method-assign]
    networks.wrap_for_ranks = lambda model, *rest: _timed(wrap(model, *rest), clock)
    evaluation.Evaluator.run = clock.left_out(evaluate)  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            build.run(configuration(name, precision, count, folder), Settings(threads=1))
    finally:
        (
            steps.TrainStep.step,
            steps.OptimizerStep.backward,
            steps.OptimizerStep.apply,
            losses.Criterion.__call__,
            steps.TrainStep.take_times,
        ) = originals  # type: ignore[method-assign]
        networks.wrap_for_ranks, evaluation.Evaluator.run = wrap, evaluate  # type: ignore[method-assign]
    whole = clock.ended - clock.began
    return 1 - clock.inside / whole, clock.waiting / whole, whole / (count - WARMUP)


def _timed(model: Any, clock: Clock) -> Any:
    model.forward = clock.counted(model.forward)
    return model


def table(names: list[str], precisions: list[str], count: int) -> None:
    print("| network | precision | s per step | outside the model, % | of it waiting for data, % |")
    print("|---|---|---|---|---|")
    for name in names:
        for precision in precisions:
            outside, waiting, seconds = share_outside(name, precision, count)
            print(
                f"| {name} | {precision} | {seconds:.2f} | {100 * outside:.2f} | "
                f"{100 * waiting:.2f} |",
                flush=True,
            )
