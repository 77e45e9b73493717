"""A small CIFAR-100 as it is published: the files of both layouts, with a few random images."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

COUNTS = {"train": 20, "test": 4}
NAMES = [f"thing_{number}" for number in range(100)]


def records(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels ``[n, 3072]``, fine and coarse labels; the last fine label is 99."""
    generator, count = np.random.default_rng(COUNTS[split]), COUNTS[split]
    pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
    fine = 99 - np.arange(count, dtype=np.uint8)[::-1] * 3
    return pixels, fine, fine // 5


def python_layout(root: Path, folder: str = "cifar-100-python") -> Path:
    """The root, with ``train``, ``test`` and ``meta`` in the folder."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for split in COUNTS:
        pixels, fine, coarse = records(split)
        content = {
            b"data": pixels,
            b"fine_labels": fine.tolist(),
            b"coarse_labels": coarse.tolist(),
        }
        (root / folder / split).write_bytes(pickle.dumps(content, protocol=2))
    meta = {
        b"fine_label_names": [name.encode() for name in NAMES],
        b"coarse_label_names": [b"things"],
    }
    (root / folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


def binary_layout(root: Path, folder: str = "cifar-100-binary") -> Path:
    """The root, with ``train.bin``, ``test.bin`` and the names in the folder."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for split in COUNTS:
        pixels, fine, coarse = records(split)
        np.concatenate([coarse[:, None], fine[:, None], pixels], 1).tofile(
            root / folder / f"{split}.bin"
        )
    (root / folder / "fine_label_names.txt").write_text("\n".join(NAMES) + "\n\n")
    return root
