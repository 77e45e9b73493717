"""Of benchmarks/throughput.py: JPEG files to batches, images per second of one core.

The files are crops of the two photographs that scikit-learn ships, at the size and quality of
ImageNet's. Torchvision's pipeline is the one of its own reference: ImageFolder, RandomResizedCrop,
flip, then either floats that are normalised in the loader or, the better way, bytes. Both load in
this process, whose CPU time is what counts.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from inception_trainer.config.normalization import IMAGENET
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits

FILES, WIDTH, HEIGHT, SIDE, BATCH, TURN = 256, 500, 375, 224, 32, 4
"""A turn is so many batches."""
Batches = Iterator[Any]


def write_images(root: Path, count: int = FILES) -> None:
    """``count`` training images, and one to validate on."""
    photographs = [Image.fromarray(image) for image in sklearn.datasets.load_sample_images().images]
    generator = np.random.default_rng(0)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        share = generator.uniform(0.5, 1.0)
        width, height = photograph.width * share, photograph.height * share
        left, top = (
            generator.uniform(0, photograph.width - width),
            generator.uniform(0, photograph.height - height),
        )
        picture = photograph.resize((WIDTH, HEIGHT), box=(left, top, left + width, top + height))
        for split in ("train", "val"):
            path = root / split / "photo" / f"{number}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if split == "train" or number == 0:
                picture.save(path, quality=90)


def ours(root: Path) -> Batches:
    data = {"kind": "ImageFolder", "path": str(root), "imageSize": SIDE, "workers": 0}
    train = open_splits(from_mapping({"data": data})).train
    for epoch in range(10**6):
        order = np.random.default_rng(epoch).permutation(len(train))
        numbers = [order[i : i + BATCH] for i in range(0, len(train) - BATCH + 1, BATCH)]
        with train.stream(numbers, epoch) as stream:
            yield from stream


def theirs(root: Path, last: list[Any]) -> Batches:
    transform = v2.Compose(
        [v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip(), *last]
    )
    folder = torchvision.datasets.ImageFolder(str(root / "train"), transform)
    loader = torch.utils.data.DataLoader(folder, BATCH, shuffle=True, drop_last=True)
    while True:
        yield from loader


FLOATS = [
    v2.PILToTensor(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize(IMAGENET.mean, IMAGENET.std),
]
BYTES = [v2.PILToTensor()]


def table(rounds: int) -> None:
    """The contestants take turns of a few batches."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root)
        contestants: dict[str, Callable[[], Batches]] = {
            "trainer": lambda: ours(root),
            "torchvision, floats": lambda: theirs(root, FLOATS),
            "torchvision, bytes": lambda: theirs(root, BYTES),
        }
        streams = {name: make() for name, make in contestants.items()}
        speeds: dict[str, list[float]] = {name: [] for name in streams}
        for number in range(rounds + 1):
            for name in sorted(streams, reverse=bool(number % 2)):
                speed = _turn(streams[name])
                print(f"round {number}: {name} {speed:.0f}", file=sys.stderr, flush=True)
                if number:
                    speeds[name].append(speed)
    print("| loader | images/s of one core | ÷ it: the trainer, median of the rounds |")
    print("|---|---|---|")
    for name, values in speeds.items():
        ratios = [own / other for own, other in zip(speeds["trainer"], values, strict=True)]
        print(f"| {name} | {statistics.median(values):.0f} | {statistics.median(ratios):.2f} |")


def _turn(stream: Batches) -> float:
    """Images per second of CPU time."""
    began = time.process_time()
    for _ in range(TURN):
        next(stream)
    return TURN * BATCH / (time.process_time() - began)
