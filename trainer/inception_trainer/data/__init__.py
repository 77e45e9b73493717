"""Samples: where they come from, in which order, and how they are augmented.

Order is a pure function of (seed, epoch), augmentation of (seed, epoch, index): how many ranks or
loader workers there are, and where a run was interrupted, changes nothing that is seen.

``build`` opens what ``data.kind`` names. ``sampler`` says which samples a rank takes at a step, and
``counter_rng`` has the random numbers for it. ``memory`` is the base of the small sets in memory
(``digits``, ``cifar`` with ``cifarfiles``, ``synthetic``), ``encoded`` that of files and shards of
JPEG and other images (``imagefolder``, ``imagelist``, ``shards``), with ``workers`` to ``decode``
them: ``crops`` says which region, ``colours`` what becomes of each kind of pixel. What is no image
is ``ignored``; ``found`` says what was found, and ``check`` reads all of it without training.
Nothing here knows devices, ranks or networks.
"""

from .base import Batch, Dataset, Splits
from .build import open_splits

__all__ = ["Batch", "Dataset", "Splits", "open_splits"]
