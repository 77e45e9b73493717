"""Deterministic order and randomness from counters: no generator state to save, share or lose.

Everything derives from splitmix64 (Steele, Lea and Flood 2014), so it does not depend on the random
number streams of a numpy or torch release.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import Indices

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix each 64-bit value into a uniform one."""
    with np.errstate(over="ignore"):
        z = values + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def stream_key(*counters: int) -> np.uint64:
    """One key from several counters; their order matters."""
    state = np.zeros(1, np.uint64)
    for counter in counters:
        state = splitmix64(state ^ np.uint64(counter & 0xFFFFFFFFFFFFFFFF))
    return np.uint64(state[0])


def hashes(key: np.uint64, indices: Indices) -> NDArray[np.uint64]:
    """A uniform 64-bit value per index."""
    return splitmix64(splitmix64(indices.astype(np.uint64)) ^ key)


def permutation(length: int, seed: int, epoch: int) -> Indices:
    """The order of the ``length`` samples in this epoch."""
    values = hashes(stream_key(seed, epoch, 1), np.arange(length, dtype=np.int64))
    return np.argsort(values, kind="stable").astype(np.int64, copy=False)


def uniforms(
    indices: Indices, seed: int, epoch: int, count: int, stream: int = 2
) -> NDArray[np.float64]:
    """``[n, count]`` uniform numbers in [0, 1), a function of (seed, epoch, index); each use has
    its ``stream``.
    """
    columns = [hashes(stream_key(seed, epoch, stream, column), indices) for column in range(count)]
    return np.stack(columns, 1) / 2.0**64
