"""Of benchmarks/gpu.py: its parts, each a process of its own that prints a line of JSON for every
figure, so that one part that fails or hangs takes nothing from the others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from benchmarks import checkpoints, gpu_steps, gpu_timeline, recovery_launcher, throughput_data
from benchmarks.gpu_steps import NETWORKS, SMALL, Json
from inception_trainer import modes
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits
from inception_trainer.train.setup import with_workers

RECORDED_STEPS = 10
PIPELINE_NETWORK = "resnet50"
ALL_REDUCE_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Options:
    """What a part is told."""

    device: str
    small: bool
    output: Path
    """Where pictures' data and traces are left."""
    seconds: float
    """How long the part may take."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    precisions: tuple[str, ...] = gpu_steps.PRECISIONS
    executions: tuple[str, ...] = ("Eager", "Compiled")


def steps(options: Options) -> Iterator[Json]:
    plan = gpu_steps.Plan(
        options.device,
        options.networks,
        options.precisions,
        options.executions,
        turn_seconds=0.05 if options.small else 0.5,
        rounds=1 if options.small else gpu_steps.ROUNDS,
        small=options.small,
    )
    # The parent's patience ends a little later than that of the part.
    yield from gpu_steps.measure(plan, time.monotonic() + options.seconds - 5)


def pipeline(options: Options) -> Iterator[Json]:
    """The trainer's own mode Benchmark with images that are there and with JPEG files, ten steps of
    each recorded, and the loader alone.
    """
    side, batch = (SMALL if options.small else NETWORKS)[PIPELINE_NETWORK]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        jpegs = _jpeg_files(
            root / "images", 16 if options.small else 256, 1 if options.small else 16
        )
        sources: dict[str, Json] = {
            "images in memory": {"kind": "Synthetic", "samples": 4 * batch, "numClasses": 1000},
            "JPEG files": {"kind": "ImageFolder", "path": str(jpegs)},
        }
        speeds = []
        for name, data in sources.items():
            data = data | {"imageSize": side}
            row = _benchmark(options, root / name.replace(" ", "-"), data, batch)
            speeds.append(row["imagesPerSecond"])
            yield {"source": name} | row
        yield {"loaderBoundShare": round(max(0.0, 1 - speeds[1] / speeds[0]), 3)}
        yield _loader_alone(options, sources["JPEG files"] | {"imageSize": side}, batch)


def _jpeg_files(root: Path, count: int, times: int) -> Path:
    """``count`` files under ``times`` as many names: decoding them is the work, not making them."""
    throughput_data.write_images(root, count)
    for path in list((root / "train" / "photo").iterdir()):
        for number in range(1, times):
            os.link(path, path.with_name(f"{number}-{path.name}"))
    return root


def _benchmark(options: Options, folder: Path, data: Json, batch: int) -> Json:
    config = {
        "mode": "Benchmark",
        "model": {"name": PIPELINE_NETWORK},
        "loss": {"auxiliaryWeight": 0},
        "data": data,
        "batch": {"global": batch},
        "precision": "FP32" if options.small else "BF16",
        "accelerator": {"device": options.device, "profile": options.device},
        "benchmark": {
            "warmupSteps": 1 if options.small else 10,
            "steps": 2 if options.small else 40,
        },
        "profiler": {"steps": RECORDED_STEPS},
        "output": {"path": str(folder)},
    }
    summary = modes.run(from_mapping(config), Settings())
    trace = folder / "benchmark" / "trace.json.gz"
    kept = options.output / f"timeline-{folder.name}.json.gz"
    shutil.copyfile(trace, kept)
    keys = ("imagesPerSecond", "globalBatch", "dataWaitRatio", "peakMemoryBytes", "precision")
    return {
        **{key: summary.get(key) for key in keys},
        "timeline": kept.name,
        **gpu_timeline.read(kept).figures(),
    }


def _loader_alone(options: Options, data: Json, batch: int) -> Json:
    """How fast the loader is when nobody computes."""
    on_cpu = options.device == "cpu"
    config = with_workers(from_mapping({"data": data}), Settings(), computes_on_cpu=on_cpu)
    splits = open_splits(config)
    order = np.arange(len(splits.train))
    batches = [order[at : at + batch] for at in range(0, len(order) - batch + 1, batch)]
    seen, began = 0, time.perf_counter()
    try:
        with splits.train.stream(batches, 0) as stream:
            for number, images in enumerate(stream):
                if number == 0:
                    # Workers have started by now.
                    began = time.perf_counter()
                    continue
                seen += len(images.labels)
    finally:
        splits.close()
    speed = seen / max(1e-9, time.perf_counter() - began)
    return {
        "loaderAloneImagesPerSecond": round(speed, 1),
        "workers": config.data.workers,
        "cpus": len(os.sched_getaffinity(0)),
    }


def checkpoint_stalls(options: Options) -> Iterator[Json]:
    for network in options.networks:
        found = checkpoints.measure(network, None, options.device, 1 if options.small else 5)
        yield {"network": network, **found}


def recovery(options: Options) -> Iterator[Json]:
    """Kill a rank: launchers, fork server and the trainer, no Kubernetes."""
    trials = 1 if options.small else 5
    if options.device == "cpu":
        cases = [("two pods, gloo", "gloo", 2, 1)]
    else:
        devices = torch.cuda.device_count()
        cases = [("one rank", "nccl", 1, 1), ("two pods on one device, gloo", "gloo", 2, 1)]
        if devices > 1:
            cases.insert(0, ("two ranks, two devices, NCCL", "nccl", 1, 2))
        else:
            yield {"note": "NCCL refuses two ranks on one device: recovery by it needs two devices"}
            yield _nccl_alone()
    for name, backend, launchers, nproc in cases:
        yield {"case": name} | _recovered(options, backend, launchers, nproc, trials)


def _recovered(options: Options, backend: str, launchers: int, nproc: int, trials: int) -> Json:
    accelerator = {"device": options.device, "profile": options.device, "backend": backend}
    with (
        tempfile.TemporaryDirectory(prefix="recovery-") as folder,
        tempfile.TemporaryDirectory(prefix="bench-gpu-", dir=_shared_memory()) as memory,
    ):
        rows = recovery_launcher.measure(
            recovery_launcher.Options(
                trials,
                0.05,
                nproc,
                recovery_launcher.REAL,
                Path(folder),
                launchers,
                accelerator,
                Path(memory),
            )
        )
    return {"trials": rows}


def _shared_memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


def _nccl_alone() -> Json:
    """What NCCL takes to begin with one rank: a process group, and the first and second sum."""
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        dist.init_process_group("nccl", init_method=f"file://{folder}/store", rank=0, world_size=1)
        values = torch.ones(ALL_REDUCE_BYTES // 4, device="cuda")
        marks = [time.perf_counter()]
        for _ in range(2):
            dist.all_reduce(values)
            torch.cuda.synchronize()
            marks.append(time.perf_counter())
        dist.destroy_process_group()
    return {
        "ncclGroupSeconds": round(marks[0] - began, 3),
        "ncclFirstSumSeconds": round(marks[1] - marks[0], 3),
        "ncclNextSumSeconds": round(marks[2] - marks[1], 5),
    }


PARTS: dict[str, Callable[[Options], Iterator[Json]]] = {
    "pipeline": pipeline,
    "checkpoints": checkpoint_stalls,
    "recovery": recovery,
    "steps": steps,
}


def main(part: str, options: Options) -> None:
    rows = private_output()
    for row in PARTS[part](options):
        print(json.dumps(row), file=rows, flush=True)


def private_output() -> TextIO:
    """What the parent reads; whatever a library prints goes to the standard error."""
    rows = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return rows


def _options(arguments: list[str]) -> tuple[str, Options]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("options", type=json.loads)
    parsed = parser.parse_args(arguments)
    values: dict[str, Any] = parsed.options
    values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return parsed.part, Options(**values | {"output": Path(values["output"])})


if __name__ == "__main__":
    main(*_options(sys.argv[1:]))
