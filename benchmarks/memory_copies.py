"""What copies in the pod's memory cost while all is well: the same training with and without them,
block by block in turn, and how long a last copy takes.

Means count, not medians: a copy falls on few of the steps. Each pair of blocks gives one
difference, so that what else the machine does meanwhile falls on both.

    PYTHONPATH=trainer python -m benchmarks.memory_copies --pairs 10
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from inception_trainer import device, models
from inception_trainer.checkpoint.base import MemoryCopyRecord
from inception_trainer.checkpoint.memory import MemoryFolder
from inception_trainer.checkpoint.memory_statistics import StatisticsFile
from inception_trainer.comm import Comm
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import from_mapping
from inception_trainer.reporting.progress import Progress
from inception_trainer.train.boundary import ordered
from inception_trainer.train.memory import MemoryCopies
from inception_trainer.train.state import TrainingState
from inception_trainer.train.step import OptimizerStep

NETWORKS = {"bninception": 32, "inception_v3": 75, "inception_v4": 75, "resnet50": 32}
"""With the side of the images."""


class Training:
    """One network that is trained on noise, with copies in ``folder`` or without."""

    def __init__(self, name: str, folder: Path, batch: int) -> None:
        config = from_mapping(
            {
                "model": {"name": name},
                "data": {"kind": "Synthetic", "imageSize": NETWORKS[name]},
                "accelerator": {"device": "cpu"},
                "loss": {"auxiliaryWeight": 0},
            }
        )
        accelerator = device.resolve(config.accelerator, "Auto", Settings())
        self.network = models.create(name, 1000).to(memory_format=torch.channels_last)
        self.updater = OptimizerStep(config, self.network, accelerator)
        state = TrainingState(self.network, self.updater, Comm(0, 1, "gloo"))
        side = NETWORKS[name]
        self.images = torch.randn(batch, 3, side, side).contiguous(
            memory_format=torch.channels_last
        )
        self.progress = Progress()
        self.copied: list[MemoryCopyRecord] = []
        self.memory = MemoryCopies(state, torch.device("cpu"), self.copied.append)
        self._step(copies=False)
        shared = MemoryFolder(folder, "benchmark", 1)
        shared.create()
        like = list(ordered(state.statistics()).values())
        statistics_file = StatisticsFile(shared.statistics(0), 1, 0, 1, like)
        self.memory.begin(shared, statistics_file, {}, self.progress, writes=True)

    def block(self, seconds: float, *, copies: bool) -> float:
        """The mean time of a step, in seconds."""
        began = time.perf_counter()
        steps = 0
        while time.perf_counter() - began < seconds:
            self._step(copies=copies)
            steps += 1
        return (time.perf_counter() - began) / steps

    def _step(self, *, copies: bool) -> None:
        if copies and self.memory.is_due():
            self.memory.copy()
        self.updater.backward(self.network(self.images).square().mean())
        if copies:
            self.memory.begin_update()
        self.updater.apply(0.0, 1)
        self.progress.step += 1
        if copies:
            self.memory.finished(self.progress)


def main() -> None:
    """Measure and print a row per network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=25.0, help="length of a block")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--network", choices=NETWORKS, action="append")
    options = parser.parse_args()
    print(
        "| network | copy, MiB | step without, ms | with, ms | cost, median of pairs | quartiles | "
        "copies | until usable, s | last copy, s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.network or NETWORKS:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            print(_row(name, Training(name, Path(folder), options.batch), options), flush=True)


def _row(name: str, training: Training, options: argparse.Namespace) -> str:
    training.block(options.seconds / 2, copies=True)
    pairs: list[tuple[float, float]] = []
    for number in range(options.pairs):
        # In turn, because the first of two is the one that follows the other's end.
        order = (False, True) if number % 2 else (True, False)
        times = {copies: training.block(options.seconds, copies=copies) for copies in order}
        pairs.append((times[False], times[True]))
    costs = [100 * (with_ / without - 1) for without, with_ in pairs]
    quartiles = statistics.quantiles(costs, n=4) if len(costs) > 1 else costs * 3
    began = time.perf_counter()
    training.memory.leave()
    last = time.perf_counter() - began
    copies = training.copied[:-1]
    usable = statistics.median(copy.seconds for copy in copies) if copies else 0.0
    return (
        f"| {name} | {training.copied[-1].size / 2**20:.0f} "
        f"| {1000 * statistics.mean(pair[0] for pair in pairs):.1f} "
        f"| {1000 * statistics.mean(pair[1] for pair in pairs):.1f} "
        f"| {statistics.median(costs):+.2f} % | {quartiles[0]:+.2f} to {quartiles[2]:+.2f} % "
        f"| {len(copies)} | {usable:.2f} | {last:.2f} |"
    )


if __name__ == "__main__":
    main()
