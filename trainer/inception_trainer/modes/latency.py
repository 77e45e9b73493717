"""How long one batch takes, from pixels in host memory to logits in host memory, by batch size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inception_trainer.config.training import TrainingConfig
from inception_trainer.device import StepTimes
from inception_trainer.log import logger

from .common import Boundary, Run

PERCENTILES = (50, 90, 95, 99)


def sweep(
    run: Run, boundary: Boundary, compute: Callable[[Tensor], Tensor]
) -> list[dict[str, Any]]:
    """The latencies of one rank for each of ``inference.batchSizes``, while all ranks compute."""
    results = []
    steps_done = 0
    for size in run.config.inference.batch_sizes:
        images = _random_images(size, run.config)
        seconds = []
        for _ in range(steps_per_size(run.config)):
            boundary.check()
            began = time.perf_counter()
            # Its result is in host memory, so the device is done when the call returns.
            compute(images)
            seconds.append(time.perf_counter() - began)
            steps_done += 1
            run.step(steps_done, 0, "infer", seconds[-1])
            run.bus.step_times(StepTimes(steps_done, 0.0, seconds[-1]))
        results.append(figures(size, seconds[run.config.benchmark.warmup_steps :]))
        logger.info("%s", describe(results[-1]))
    return results


def steps_per_size(config: TrainingConfig) -> int:
    """Batches computed for one size, those that are not measured included."""
    return config.benchmark.warmup_steps + config.benchmark.steps


def _random_images(count: int, config: TrainingConfig) -> Tensor:
    """uint8 ``[count, 3, side, side]``, equal on all ranks."""
    generator = torch.Generator().manual_seed(config.seed)
    side = config.data.image_size
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def figures(batch: int, seconds: list[float]) -> dict[str, Any]:
    """Percentiles in seconds (interpolated), and images per second at the mean."""
    speed = batch * len(seconds) / max(sum(seconds), 1e-9)
    return {"imagesPerSecond": round(speed, 3), **percentiles(batch, seconds)}


def percentiles(batch: int, seconds: list[float]) -> dict[str, Any]:
    """Mean, percentiles (interpolated) and largest of the seconds that batches took."""
    values = np.percentile(seconds, PERCENTILES).tolist()
    return {
        "batch": batch,
        "meanSeconds": sum(seconds) / len(seconds),
        **{f"p{share}Seconds": value for share, value in zip(PERCENTILES, values, strict=True)},
        "maxSeconds": max(seconds),
    }


def describe(result: dict[str, Any]) -> str:
    """One line of the log."""
    percentiles = [f"p{share} {1000 * result[f'p{share}Seconds']:.2f} ms" for share in PERCENTILES]
    return (
        f"batch {result['batch']}: {result['imagesPerSecond']:.1f} img/s, "
        f"{', '.join(percentiles)}, max {1000 * result['maxSeconds']:.2f} ms"
    )
