"""Processor time of the loader for an image: colour jitter and random erasing done by it, or left
to the device.

The same batches are read in this process by turns, each way once in a round and in an order that
changes, so that what else the machine does meets all of them alike. Only processor time is
measured, of one thread. What the rank then does for a batch (a call for each of some ten
operations) and what the device computes is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.throughput_data import BATCH, FILES, SIDE, write_images
from inception_trainer.config.training import from_mapping
from inception_trainer.data import Dataset, open_splits

JITTER: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
KINDS: dict[str, dict[str, Any]] = {
    "jitter": {"colorJitter": JITTER},
    "jitter, erasing of a quarter": {"colorJitter": JITTER, "randomErasing": 0.25},
}
NONE, LOADER, DEVICE = "none", "by the loader", "left to the device"


def main() -> None:
    """Print milliseconds of processor time for an image, and the medians of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=24, help="batches that each way reads")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        for name, augmentation in KINDS.items():
            _report(name, _measure(_ways(Path(folder), augmentation), rounds))


def _ways(root: Path, augmentation: dict[str, Any]) -> dict[str, Dataset]:
    data = {"kind": "ImageFolder", "path": str(root), "imageSize": SIDE, "workers": 0}
    plain = open_splits(from_mapping({"data": data})).train
    loading, leaving = (
        open_splits(from_mapping({"data": data, "augmentation": augmentation})).train
        for _ in range(2)
    )
    assert leaving.augment is not None
    leaving.augment = dataclasses.replace(leaving.augment, defers=True)
    return {NONE: plain, LOADER: loading, DEVICE: leaving}


def _measure(ways: dict[str, Dataset], rounds: int) -> dict[str, list[float]]:
    """Milliseconds for an image in each round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(-1, rounds):
        indices = np.random.default_rng(number + 1).permutation(FILES)[:BATCH]
        for name in names:
            began = time.process_time()
            ways[name].batch(indices, number + 1)
            milliseconds = 1000 * (time.process_time() - began) / BATCH
            # The first round warms up.
            if number >= 0:
                taken[name].append(milliseconds)
        names = names[1:] + names[:1]
    return taken


def _report(name: str, taken: dict[str, list[float]]) -> None:
    print(name)
    for way, milliseconds in taken.items():
        low, middle, high = statistics.quantiles(milliseconds, n=4)
        print(f"  {way:20} {middle:.2f} ms an image (middle half {low:.2f} to {high:.2f})")
    pairs = zip(taken[DEVICE], taken[LOADER], strict=True)
    ratio = statistics.median(device / loader for device, loader in pairs)
    print(f"  {DEVICE} / {LOADER}, median of the rounds: {ratio:.2f}")


if __name__ == "__main__":
    main()
