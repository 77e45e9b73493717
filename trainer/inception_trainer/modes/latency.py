"""How long one batch takes, from pixels in host memory to logits in host memory, by batch size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inception_trainer.log import logger

from .common import Boundary, Run

PERCENTILES = (50, 90, 95, 99)


def sweep(
    run: Run, boundary: Boundary, compute: Callable[[Tensor], Tensor]
) -> list[dict[str, Any]]:
    """The latencies of one rank for each of ``inference.batchSizes``, while all ranks compute."""
    results, done = [], 0
    for size in run.config.inference.batch_sizes:
        generator = torch.Generator().manual_seed(run.config.seed)
        side = run.config.data.image_size
        images = torch.randint(
            0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator
        )
        seconds = []
        for _ in range(run.config.benchmark.warmup_steps + run.config.benchmark.steps):
            boundary.check()
            began = time.perf_counter()
            compute(images)
            seconds.append(time.perf_counter() - began)
            done += 1
            run.step(done, 0, "infer", 0.0, seconds[-1])
        results.append(figures(size, seconds[run.config.benchmark.warmup_steps :]))
        logger.info("%s", describe(results[-1]))
    return results


def figures(batch: int, seconds: list[float]) -> dict[str, Any]:
    """Percentiles in seconds (interpolated), and images per second at the mean."""
    values = np.percentile(seconds, PERCENTILES).tolist()
    return {
        "batch": batch,
        "imagesPerSecond": round(batch * len(seconds) / max(sum(seconds), 1e-9), 3),
        "meanSeconds": sum(seconds) / len(seconds),
        **{f"p{share}Seconds": value for share, value in zip(PERCENTILES, values, strict=True)},
        "maxSeconds": max(seconds),
    }


def describe(result: dict[str, Any]) -> str:
    """One line for people."""
    shares = ", ".join(
        f"p{share} {1000 * result[f'p{share}Seconds']:.2f} ms" for share in PERCENTILES
    )
    return f"batch {result['batch']}: {result['imagesPerSecond']:.1f} img/s, {shares}, max " + (
        f"{1000 * result['maxSeconds']:.2f} ms"
    )
