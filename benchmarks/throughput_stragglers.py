"""Of benchmarks/throughput.py: what it costs a step to tell when this rank's gradients are ready,
by which the rank that all others wait for is found.

One trainer in one process makes its steps in pairs, one with and one without the measurement, the
order turns round with each pair. What is compared is the processor time of the whole process inside
each pair: a step waits for nobody, and work of others on the machine shows little. In a step of a
second microseconds are lost among its own changes, so a network with steps of few milliseconds
tells what the measurement costs, and the others that it is nothing beside theirs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.throughput_contestants import CLASSES, RATE, Case, trainers_step
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.train.step import TrainStep

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from small_network import Small

SMALL = "small"
SMALL_PAIRS = 1000
WARMUP = 3


class SwitchedStep(TrainStep):
    """A training step whose measurement can be switched off."""

    measures = True

    def _time_gradients(self, loss: Tensor) -> None:
        if self.measures:
            super()._time_gradients(loss)


def pairs(case: Case, count: int, folder: Path) -> list[tuple[float, float]]:
    """Processor seconds of steps with and without the measurement, made one after the other."""
    torch.manual_seed(0)
    small = case.network == SMALL
    # A configuration has to name a network of the catalogue; the small one takes its place.
    named = replace(case, network="bninception") if small else case
    stepper = trainers_step(named, SwitchedStep, Small(CLASSES) if small else None)
    assert isinstance(stepper, SwitchedStep)
    batch, heartbeat = case.batch_of_bytes(), Heartbeat(folder / "heartbeat-0")
    done = 0

    def step() -> None:
        nonlocal done
        stepper.step(iter([batch]), done, RATE)
        done += 1
        # As the training loop does after each step.
        for times in stepper.take_times():
            assert (times.own_seconds is not None) == stepper.measures
            if times.own_seconds is not None and times.wait_seconds is not None:
                whole = times.data_seconds + times.compute_seconds
                heartbeat.add_times(whole, times.own_seconds, times.wait_seconds)
        heartbeat.step(done)

    def timed(*, measures: bool) -> float:
        stepper.measures = measures
        return _processor_time(step)

    for _ in range(WARMUP):
        timed(measures=True)
    found = []
    for number in range(count):
        if number % 2:
            with_it = timed(measures=True)
            found.append((with_it, timed(measures=False)))
        else:
            without = timed(measures=False)
            found.append((timed(measures=True), without))
    return found


def _processor_time(step: Callable[[], None]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def table(networks: dict[str, tuple[int, int]], precisions: list[str], count: int) -> None:
    """Print the table: ``networks`` with the side of their images and the batch."""
    print("| network | precision | pairs | ms without | more with it, µs | of a step, % |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (side, batch) in {SMALL: (32, 4), **networks}.items():
            for precision in precisions:
                number = SMALL_PAIRS if name == SMALL else count
                case = Case(name, side, batch, precision)
                _row(case, pairs(case, number, Path(folder)))


def _row(case: Case, found: list[tuple[float, float]]) -> None:
    without = statistics.median(each for _, each in found)
    more = [1e6 * (with_it - before) for with_it, before in found]
    low, middle, high = statistics.quantiles(more, n=4)
    # How well the median is known: of many like it, nine in ten are so near.
    error = 1.64 * 1.25 * (high - low) / 1.35 / len(more) ** 0.5
    share, share_error = (each / without / 1e4 for each in (middle, error))
    print(
        f"| {case.network} | {case.precision} | {len(found)} | {1000 * without:.2f} | "
        f"{middle:.0f} ± {error:.0f} | {share:.3f} ± {share_error:.3f} |",
        flush=True,
    )
