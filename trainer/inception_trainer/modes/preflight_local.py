"""What mode Preflight tries on each rank alone: products of matrices, shared memory, data, and the
place of the checkpoints.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inception_trainer.checkpoint import memory as copies
from inception_trainer.checkpoint.fence import sync_file, sync_folder
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Dataset, open_splits
from inception_trainer.data.base import UNREADABLE
from inception_trainer.data.check import image_name
from inception_trainer.data.counter_rng import Indices
from inception_trainer.device import Accelerator
from inception_trainer.errors import TrainerError
from inception_trainer.storage import describe, lacks_room
from inception_trainer.stores import Remote, place
from inception_trainer.train.optimizers import STATE_PARTS, STEPS

from .common import Run, rank_batch

CHECKED_SIDE = 512
CHECKED_PRODUCTS = 3
SIDE_ON_CPU = 512
SMALLEST_SIDE, LARGEST_SIDE = 1024, 8192
LONG_ENOUGH = 0.004
"""Seconds of a product that shows the speed of a device and not that of its launch."""
WINDOWS = 5
WINDOW_SECONDS = 0.05
MOST_PRODUCTS = 50
WRITES = 3
MOST_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """What one check has found on one rank; with a ``problem`` the rank is not fit for the job."""

    check: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    remedy: str = ""
    remark: str = ""
    """What is worth knowing and ends no training."""
    skipped: str = ""
    """Why there was nothing to check."""


REMEDIES = {
    "matmul": "Look for errors of the device in the kernel's log of the node and in the vendor's "
    "own tool, and keep the node out (`kubectl cordon`) until it is repaired.",
    "memory": "Raise the memory limit of the pod, or set spec.checkpoint.memory to Never.",
    "data": "Compare the mount of data.path and its rights on this node with those of the others.",
    "checkpoint": "Compare the mount of the checkpoints and its rights on this node with those of "
    "the others.",
}
_ROOM = "Make room there, or raise the quota."


def remedy_of(check: str, error: BaseException) -> str:
    """What to do about an error of a check."""
    return _ROOM if check == "checkpoint" and lacks_room(error) else REMEDIES[check]


def words(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        return f"{path}{describe(error)}"
    text = " ".join(str(error).split())
    return text if isinstance(error, TrainerError) else f"{type(error).__name__}: {text}"


def wait_for(values: Tensor, accelerator: Accelerator) -> None:
    """Return once the device has computed these values."""
    accelerator.end_of_step()
    # Reading one back is the only way to wait that every vendor has.
    values.flatten()[:1].to("cpu")


# Products of matrices.


def matmul(run: Run) -> Finding:
    """Products in the precision of the job against those of the CPU in double precision, and how
    fast they are.
    """
    accelerator = run.accelerator
    wrong, worst = _wrong_products(accelerator, run.comm.rank)
    side, seconds = _time_products(run)
    figures = {
        "teraflops": 2 * side**3 / seconds / 1e12,
        "seconds": seconds,
        "side": side,
        "precision": accelerator.precision,
        "errorShare": worst if math.isfinite(worst) else None,
    }
    if not wrong:
        return Finding("matmul", figures)
    problem = (
        f"{wrong} of {CHECKED_PRODUCTS} products on {accelerator.device} ({accelerator.name}, "
        f"{accelerator.precision}) are wrong"
    )
    return Finding("matmul", figures, problem, REMEDIES["matmul"])


def _wrong_products(accelerator: Accelerator, rank: int) -> tuple[int, float]:
    """How many products are wrong, and the largest error as a share of what is allowed."""
    generator = torch.Generator().manual_seed(rank)
    wrong, worst = 0, 0.0
    for _ in range(CHECKED_PRODUCTS):
        share = max(_error_of_whole_numbers(accelerator, generator), _error(accelerator, generator))
        worst = max(worst, share)
        wrong += not share <= 1
    return wrong, worst


def _error_of_whole_numbers(accelerator: Accelerator, generator: torch.Generator) -> float:
    """0 or infinity: sums of so few ones are exact in every precision, so each bit counts."""
    shape = (2, CHECKED_SIDE, CHECKED_SIDE)
    left, right = torch.randint(-1, 2, shape, generator=generator).to(torch.float64)
    got = _product(left, right, accelerator)
    return 0.0 if torch.equal(got, left @ right) else math.inf


def _error(accelerator: Accelerator, generator: torch.Generator) -> float:
    """The largest error of a product of any numbers, as a share of what rounding may do."""
    shape = (2, CHECKED_SIDE, CHECKED_SIDE)
    numbers = torch.randn(shape, generator=generator).to(accelerator.compute_type)
    left, right = numbers.to(torch.float64)
    got = _product(left, right, accelerator)
    bound = _rounding(accelerator) * (left.abs() @ right.abs())
    share = float(((got - left @ right).abs() / bound).max())
    return share if math.isfinite(share) else math.inf


def _rounding(accelerator: Accelerator) -> float:
    if accelerator.precision == "TF32":
        return 2.0**-10
    if accelerator.compute_type == torch.float32:
        # The errors of the sums add up like a random walk.
        return float(torch.finfo(torch.float32).eps) * math.sqrt(CHECKED_SIDE)
    return float(torch.finfo(accelerator.compute_type).eps)


def _product(left: Tensor, right: Tensor, accelerator: Accelerator) -> Tensor:
    kind, device = accelerator.compute_type, accelerator.device
    product = left.to(kind).to(device) @ right.to(kind).to(device)
    accelerator.end_of_step()
    return product.to("cpu").to(torch.float64)


def _time_products(run: Run) -> tuple[int, float]:
    """The size of the matrices, and the seconds of a product in the best of several windows."""
    accelerator = run.accelerator
    side = SIDE_ON_CPU if accelerator.is_cpu else SMALLEST_SIDE
    seconds = _seconds_of_product(run, side, 1)
    while not accelerator.is_cpu and seconds < LONG_ENOUGH and side < LARGEST_SIDE:
        side *= 2
        seconds = _seconds_of_product(run, side, 1)
    count = max(1, min(MOST_PRODUCTS, math.ceil(WINDOW_SECONDS / max(seconds, 1e-9))))
    return side, min(_seconds_of_product(run, side, count) for _ in range(WINDOWS))


def _seconds_of_product(run: Run, side: int, count: int) -> float:
    accelerator = run.accelerator
    ones = torch.ones((side, side), dtype=accelerator.compute_type, device=accelerator.device)
    result = torch.mm(ones, ones)
    wait_for(result, accelerator)
    began = time.perf_counter()
    for _ in range(count):
        torch.mm(ones, ones, out=result)
    wait_for(result, accelerator)
    seconds = time.perf_counter() - began
    run.heartbeat.beat()
    return seconds / count


# Memory.


def memory(run: Run, network: nn.Module) -> Finding:
    """Is there room in /dev/shm for the copies of the state that a restart goes on from?"""
    folder = copies.ROOT.parent
    status = os.statvfs(folder)
    figures = {"freeMebibytes": (status.f_bavail * status.f_frsize) >> 20}
    if run.config.checkpoint.memory == "Never" or not run.settings.job_uid:
        return Finding("memory", figures, skipped="the job keeps no copies in memory")
    needed = len(copies.BUFFERS) * state_bytes(run.config, network)
    figures |= {"neededMebibytes": needed >> 20}
    lack = copies.lack_of_room(folder, needed)
    if lack is None:
        return Finding("memory", figures)
    problem = f"no room for copies of the state: {lack}"
    return Finding("memory", figures, problem, REMEDIES["memory"])


def state_bytes(config: TrainingConfig, network: nn.Module) -> int:
    """About how much a copy of the state of the training takes."""
    networks = 1 if config.weight_average.decay is None else 2
    moments = len(STATE_PARTS[config.optimizer.name].keys() - {STEPS})
    parameters = sum(each.numel() * each.element_size() for each in network.parameters())
    statistics = sum(each.numel() * each.element_size() for each in network.buffers())
    return (networks + moments) * parameters + networks * statistics


# Data.


def data(run: Run) -> Finding:
    """Read some samples as an epoch does, and count those that cannot be read."""
    config = run.config
    if not config.reads_data:
        return Finding("data", skipped="spec.training.data does not say what to read")
    splits = open_splits(config)
    with closing(splits):
        samples = _own_samples(run, len(splits.train))
        size = min(rank_batch(run), max(1, len(samples)))
        batches = [samples[at : at + size] for at in range(0, len(samples), size)]
        unreadable: list[int] = []
        began = time.perf_counter()
        with splits.train.stream(batches, 0) as stream:
            for indices, batch in zip(batches, run.heartbeat.over(stream), strict=True):
                unreadable += indices[(batch.labels == UNREADABLE).numpy()].tolist()
        seconds = time.perf_counter() - began
    run.samples_seen += len(samples)
    figures = {
        "imagesPerSecond": len(samples) / max(seconds, 1e-9),
        "seconds": seconds / max(1, len(samples)),
        "samples": len(samples),
        "unreadable": len(unreadable),
    }
    return Finding("data", figures, remark=_unreadable(splits.train, unreadable, len(samples)))


def _own_samples(run: Run, length: int) -> Indices:
    """Spread over the split, and other ones on every rank, so that none finds in the node's memory
    what another one has read.
    """
    world = run.comm.world_size
    count = max(1, min(run.config.preflight.samples, length // world))
    wanted = np.arange(count * world, dtype=np.int64) * length // (count * world)
    return wanted[run.comm.rank :: world]


def _unreadable(dataset: Dataset, indices: list[int], count: int) -> str:
    if not indices:
        return ""
    names = [image_name(dataset, index) for index in indices[:MOST_NAMED]]
    return f"{len(indices)} of {count} images cannot be read, among them {', '.join(names)}"


# The place of the checkpoints.


class CheckpointProbe:
    """Writes a file where checkpoints are to be written, in a folder of its own: it takes no fence,
    so that it ends no training that writes there, and touches no checkpoint.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        path = run.config.checkpoint.path
        self._root = None if path is None else place(path)
        self._made: list[Path] = []

    def check(self) -> Finding:
        """Write, read back and remove."""
        if self._root is None:
            return Finding("checkpoint", skipped="there is no spec.checkpoint")
        mebibytes = self._run.config.preflight.write_mebibytes
        content = secrets.token_bytes(mebibytes << 20)
        digest = hashlib.sha256(content).hexdigest()
        folder = self._begin(self._root)
        times = []
        try:
            for number in range(WRITES):
                seconds, read = _write(folder, number, content)
                times.append(seconds)
                self._run.heartbeat.beat()
                if hashlib.sha256(read).hexdigest() != digest:
                    problem = f"{folder}: what was written comes back as something else"
                    return Finding("checkpoint", {}, problem, REMEDIES["checkpoint"])
        finally:
            _remove(folder)
        best = min(times)
        figures = {
            "megabytesPerSecond": len(content) / max(best, 1e-9) / 1e6,
            "seconds": best,
            "mebibytes": mebibytes,
        }
        return Finding("checkpoint", figures)

    def _begin(self, root: Path | Remote) -> Path | Remote:
        # A name that no other rank or run has, hidden from who lists checkpoints.
        name = f".preflight-{self._run.comm.rank}-{secrets.token_hex(8)}"
        if isinstance(root, Remote):
            return root / name
        self._made = [each for each in (root, *root.parents) if not each.exists()]
        folder = root / name
        folder.mkdir(parents=True)
        return folder

    def tidy(self) -> None:
        """Remove the folders that were not there before, once no rank needs them."""
        for folder in self._made:
            # Not empty, or another rank was faster.
            with suppress(OSError):
                folder.rmdir()


def _write(folder: Path | Remote, number: int, content: bytes) -> tuple[float, bytes]:
    """Write a file as a checkpoint is written; the seconds that it took, and what is there then."""
    began = time.perf_counter()
    if isinstance(folder, Remote):
        file = folder / f"file-{number}"
        file.write_bytes(content)
        seconds = time.perf_counter() - began
        # An attempt begins with copies of what the one before has left.
        copy = folder / f"copy-{number}"
        file.copy(copy)
        return seconds, copy.read_bytes()
    draft, path = folder / "file.tmp", folder / "file"
    with draft.open("wb") as opened:
        opened.write(content)
        sync_file(opened)
        # Read back from the storage, not from the memory of this node.
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    draft.replace(path)
    sync_folder(folder)
    return time.perf_counter() - began, path.read_bytes()


def _remove(folder: Path | Remote) -> None:
    if not isinstance(folder, Remote):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for number in range(WRITES):
        for name in ("file", "copy"):
            # What cannot be removed is no reason to fail: the check has said what is wrong.
            with suppress(TrainerError):
                (folder / f"{name}-{number}").remove()
