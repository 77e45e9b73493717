"""Samples that are made up, and a count of how often each was read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inception_trainer.data.base import Samples


class Store(Samples):
    """Samples of these sizes, and how often each was read."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.reads = [0] * len(sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, index: int) -> str:
        return f"sample {index}"

    @property
    def classes(self) -> np.ndarray:
        return np.arange(len(self.sizes), dtype=np.int32) % 3

    def label(self, index: int) -> int:
        return index % 3

    def identities(self) -> np.ndarray:
        return np.arange(len(self.sizes), dtype=np.uint64)

    def fingerprinted(self) -> Iterator[bytes]:
        yield repr(self.sizes).encode()

    def content(self, index: int) -> bytes:
        return bytes([index % 251]) * self.sizes[index]

    def read(self, index: int) -> bytes:
        self.reads[index] += 1
        return self.content(index)
