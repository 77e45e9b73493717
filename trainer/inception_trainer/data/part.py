"""Some samples of a split, spread evenly over it: most are sorted by class, and the first ones are
of few classes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from .base import Batch, Dataset, Indices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .augment import Augment


class Part:
    """``count`` samples of ``whole``, in its order."""

    def __init__(self, whole: Dataset, count: int) -> None:
        self._whole = whole
        self._chosen: Indices = np.arange(count, dtype=np.int64) * len(whole) // count
        self.augment: Augment | None = None

    def __len__(self) -> int:
        return len(self._chosen)

    def batch(self, indices: Indices, epoch: int | None) -> Batch:
        """The samples ``indices`` of this part."""
        return self._whole.batch(self._chosen[indices], epoch)

    def stream(
        self, batches: list[Indices], epoch: int | None
    ) -> AbstractContextManager[Iterator[Batch]]:
        """The batches of this part, read as the whole reads them."""
        return self._whole.stream([self._chosen[indices] for indices in batches], epoch)

    def close(self) -> None:
        """Close the whole."""
        self._whole.close()
