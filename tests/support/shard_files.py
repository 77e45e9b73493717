"""Writes WebDataset shards as others do: with the standard library's tarfile, in any of its
formats.
"""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

Entry = tuple[str, bytes]


def write_tar(
    path: Path, entries: Iterable[Entry], form: int = tarfile.PAX_FORMAT, mtime: float = 1.5
) -> Path:
    """A tar file; times with a fraction give each member an extended header, as WebDataset's writer
    does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in entries:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime
            tar.addfile(member, io.BytesIO(data))
    return path


def png(number: int, width: int = 48, height: int = 40) -> bytes:
    """An image of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def noise_folder(root: Path) -> None:
    """An image folder of two classes with eight images of noise in each split."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(8):
            path = root / split / f"class-{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)


def sample(key: str, image: bytes, label: int) -> list[Entry]:
    """The members of one sample."""
    return [(f"{key}.png", image), (f"{key}.cls", str(label).encode())]


def same_data(root: Path, classes: int = 4, train: int = 40, val: int = 9) -> tuple[Path, Path]:
    """The same images in the same order as image folders and as shards of different lengths."""
    folders, shards = root / "folders", root / "shards"
    for split, count in (("train", train), ("val", val)):
        entries = []
        for index in range(count):
            # Folders are read class by class.
            label = index * classes // count
            image = png(index + 1000 * (split == "val"))
            path = folders / split / f"class-{label}" / f"{index:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
            entries.append(sample(f"{index:06d}", image, label))
        cuts = [0, count // 5, count // 2, count]
        for number, (first, last) in enumerate(itertools.pairwise(cuts)):
            write_tar(
                shards / f"{split}-{number:04d}.tar",
                [entry for group in entries[first:last] for entry in group],
            )
    return folders, shards
