"""Samples: where they come from, and in which order.

Order is a pure function of (seed, epoch), augmentation of (seed, epoch, index): how many ranks or
loader processes there are, and where a run was interrupted, changes nothing that is seen.
"""

from .ahead import streamed
from .base import Batch, Dataset, Splits
from .build import open_splits

__all__ = ["Batch", "Dataset", "Splits", "open_splits", "streamed"]
