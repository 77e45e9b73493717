"""Random numbers computed from counters (seed, epoch, sample number), never drawn from a generator.

A counter-based generator has no state to save, to send to loader workers or to lose: any process
computes the numbers of any sample at any time. All of it derives from splitmix64 (Steele, Lea and
Flood 2014) in numpy's integer arithmetic, so it does not depend on the random number streams of a
numpy or torch release. :mod:`.sampler` makes the order of an epoch of it, the datasets their
augmentation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
"""Sample numbers within one split, int64 ``[n]``."""

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 0xFFFFFFFFFFFFFFFF


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix each 64-bit value into a uniform one."""
    # The algorithm is defined modulo 2**64; numpy would warn of each overflow.
    with np.errstate(over="ignore"):
        z = values + np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
        return z ^ (z >> np.uint64(31))


def _mixed(value: int) -> int:
    """:func:`splitmix64` of one value: Python's integers are faster than arrays of one number."""
    z = (value + _GOLDEN) & _WORD
    z = ((z ^ (z >> 30)) * _FIRST) & _WORD
    z = ((z ^ (z >> 27)) * _SECOND) & _WORD
    return z ^ (z >> 31)


def stream_key(*counters: int) -> np.uint64:
    """One key from several counters; their order matters.

    Every use of random numbers has a counter of its own among them (1 the order of an epoch, 2
    crops and flips, 3 synthetic noise, 4 dropout, 5 mixup, 6 to 9 augmentation, 10 what is held
    out, 20 to 22 CutMix, 23 TrivialAugment, 24 AutoAugment): two uses with the same counters would
    draw the same numbers.
    """
    state = 0
    for counter in counters:
        state = _mixed(state ^ (counter & _WORD))
    return np.uint64(state)


def hashes(key: np.uint64 | NDArray[np.uint64], indices: Indices) -> NDArray[np.uint64]:
    """A uniform 64-bit value per index, ``[n]``; ``[n, k]`` for ``k`` keys."""
    values = splitmix64(indices.astype(np.uint64))
    # Mixed twice: indices differ in their low bits only, and so would keys that are close.
    return splitmix64((values[:, None] if np.ndim(key) else values) ^ key)


def uniforms(
    indices: Indices, seed: int, epoch: int, count: int, stream: int = 2
) -> NDArray[np.float64]:
    """``[n, count]`` uniform numbers in [0, 1), a function of (seed, epoch, index).

    ``stream`` is the counter of the use, see :func:`stream_key`. One call for a whole batch costs
    little more than one for a single sample.
    """
    keys = [stream_key(seed, epoch, stream, column) for column in range(count)]
    return hashes(np.array(keys, np.uint64), indices) / 2.0**64


class SampleUniforms:
    """The uniform numbers of one sample, computed one by one as they are asked for: the columns of
    its row of :func:`uniforms`.
    """

    def __init__(self, index: int, seed: int, epoch: int, stream: int = 2) -> None:
        state = 0
        for counter in (seed, epoch, stream):
            state = _mixed(state ^ (counter & _WORD))
        self._state = state
        self._index = _mixed(index)

    def __call__(self, column: int) -> float:
        """The number in [0, 1) of a column."""
        return _mixed(self._index ^ _mixed(self._state ^ column)) / 2.0**64
